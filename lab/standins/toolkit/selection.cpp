#include "toolkit.hpp"

#include <algorithm>

std::optional<std::string> environment(const json &spec, const std::string &name) {
    std::optional<std::string> value;
    const json process = spec.value("process", json::object());
    for (const auto &one : process.value("env", json::array())) {
        const std::string text = one.get<std::string>();
        if (starts_with(text, name + "="))
            value = text.substr(name.size() + 1); /* the last one wins: docker appends --gpus' choice */
    }
    return value;
}

std::optional<std::vector<std::string>> requested_devices(const json &spec) {
    const auto visible = environment(spec, "NVIDIA_VISIBLE_DEVICES");
    if (!visible) /* images of CUDA's first years asked for all by CUDA_VERSION alone */
        return environment(spec, "CUDA_VERSION") && !environment(spec, "NVIDIA_REQUIRE_CUDA")
                   ? std::optional(std::vector<std::string>{"all"})
                   : std::nullopt;
    if (visible->empty() || *visible == "void")
        return std::nullopt;
    if (*visible == "none")
        return std::vector<std::string>{};
    std::vector<std::string> names = split(*visible, ',');
    for (auto &name : names)
        for (const char *kind : {"runtime.nvidia.com/gpu=", "nvidia.com/gpu="})
            if (starts_with(name, kind))
                name = name.substr(std::string(kind).size());
    return names;
}

const Gpu &gpu_named(const Driver &driver, const std::string &name) {
    if (starts_with(name, "GPU-")) {
        for (const auto &gpu : driver.gpus)
            if (gpu.uuid == name)
                return gpu;
        throw Failure("failed to get device handle from UUID: Not Found");
    }
    const bool is_index = !name.empty() && std::all_of(name.begin(), name.end(), ::isdigit);
    if (!is_index)
        throw Failure("invalid device identifier: " + name);
    const unsigned long index = std::stoul(name.substr(0, 9));
    if (index >= driver.gpus.size())
        throw Failure("failed to get device handle from index: Invalid Argument");
    return driver.gpus[index];
}
