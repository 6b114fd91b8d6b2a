#include "toolkit.hpp"

#include <filesystem>
#include <map>
#include <sstream>

namespace fs = std::filesystem;

namespace {

std::string node_yaml(const DeviceNode &node, const std::string &indent) {
    std::string text = indent + "- path: " + node.path + "\n" + indent + "  major: " + std::to_string(node.major_number)
                       + "\n";
    if (node.minor_number != 0)
        text += indent + "  minor: " + std::to_string(node.minor_number) + "\n";
    return text + indent + "  fileMode: 438\n" + indent + "  permissions: rwm\n";
}

std::string device_yaml(const std::string &name, const std::vector<Gpu> &gpus) {
    const bool digits = name.find_first_not_of("0123456789") == std::string::npos;
    std::string text = "    - name: " + (digits ? "\"" + name + "\"" : name) + "\n      containerEdits:\n"
                       "        deviceNodes:\n";
    for (const auto &gpu : gpus)
        text += node_yaml(gpu_node(gpu), "            ");
    return text;
}

std::string hook_yaml(const Arguments &hook) {
    std::string text = "        - hookName: createContainer\n          path: " + hook.front() + "\n          args:\n";
    for (std::size_t at = 1; at < hook.size(); at++)
        text += "            - " + hook[at] + "\n";
    return text + "          env:\n            - NVIDIA_CTK_DEBUG=false\n";
}

std::string mount_yaml(const std::string &path) {
    return "        - hostPath: " + path + "\n          containerPath: " + path
           + "\n          options:\n            - ro\n            - nosuid\n            - nodev\n            - rbind\n"
             "            - rprivate\n";
}

std::vector<std::string> names_of(const fs::path &file) {
    std::istringstream lines(read_file(file));
    std::vector<std::string> names;
    std::string kind;
    for (std::string line; std::getline(lines, line);) {
        if (starts_with(line, "kind: "))
            kind = line.substr(6);
        if (starts_with(line, "    - name: "))
            names.push_back(kind + "=" + replace_all(line.substr(12), "\"", ""));
    }
    return names;
}

}  // namespace

std::string cdi_yaml(const Driver &driver) {
    const Edits edits = common_edits(driver);
    std::string text = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n";
    for (std::size_t index = 0; index < driver.gpus.size(); index++) {
        text += device_yaml(std::to_string(index), {driver.gpus[index]});
        text += device_yaml(driver.gpus[index].uuid, {driver.gpus[index]});
    }
    text += device_yaml("all", driver.gpus) + "containerEdits:\n    env:\n";
    for (const auto &assignment : edits.env)
        text += "        - " + assignment + "\n";
    text += "    deviceNodes:\n";
    for (const auto &node : edits.nodes)
        text += node_yaml(node, "        ");
    text += "    hooks:\n";
    for (const auto &hook : edits.hooks)
        text += hook_yaml(hook);
    text += "    mounts:\n";
    for (const auto &path : edits.mounts)
        text += mount_yaml(path);
    return text;
}

/* The later folder wins; a name that two files of one folder have is resolved by neither. */
std::vector<std::string> cdi_names() {
    std::map<std::string, bool> resolved;
    for (const char *directory : {"/etc/cdi", "/var/run/cdi"}) {
        std::map<std::string, int> files;
        if (fs::is_directory(directory))
            for (const auto &entry : fs::directory_iterator(directory))
                if (entry.path().extension() == ".yaml")
                    for (const auto &name : names_of(entry.path()))
                        files[name]++;
        for (const auto &[name, count] : files)
            resolved[name] = count == 1;
    }
    std::vector<std::string> names;
    for (const auto &[name, unambiguous] : resolved)
        if (unambiguous)
            names.push_back(name);
    return names;
}
