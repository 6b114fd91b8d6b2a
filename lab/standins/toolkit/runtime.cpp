/* nvidia-container-runtime: changes the bundle's config.json on `create`, then becomes runc. */
#include "toolkit.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>

namespace {

const char *const kLegacyHook = "nvidia-container-runtime-hook";

struct Call {
    bool create = false;
    std::string bundle = ".", log, log_format = "text";
};

Call read_call(const Arguments &arguments) {
    Call call;
    for (std::size_t at = 0; at < arguments.size(); at++) {
        if (arguments[at] == "create" || arguments[at] == "run")
            call.create = true;
        else if (const auto value = option(arguments, at, "--bundle"))
            call.bundle = *value;
        else if (const auto short_value = option(arguments, at, "-b"))
            call.bundle = *short_value;
        else if (const auto log = option(arguments, at, "--log"))
            call.log = *log;
        else if (const auto format = option(arguments, at, "--log-format"))
            call.log_format = *format;
    }
    return call;
}

/* containerd shows the last error of the runtime's log. */
void report(const Call &call, const std::string &message) {
    std::cerr << message << "\n";
    if (call.log.empty())
        return;
    char now[32];
    const std::time_t seconds = std::time(nullptr);
    std::strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&seconds));
    std::ofstream log(call.log, std::ios::app);
    if (call.log_format == "json")
        log << json{{"level", "error"}, {"msg", message}, {"time", now}}.dump() << "\n";
    else
        log << "time=\"" << now << "\" level=error msg=" << json(message).dump() << "\n";
}

void remove_legacy_hooks(json &spec) {
    if (!spec.contains("hooks") || !spec["hooks"].contains("prestart"))
        return;
    json kept = json::array();
    for (const auto &hook : spec["hooks"]["prestart"])
        if (hook.value("path", "").find(kLegacyHook) == std::string::npos)
            kept.push_back(hook);
    spec["hooks"]["prestart"] = kept;
}

void add_legacy_hook(json &spec) {
    remove_legacy_hooks(spec);
    const std::string path = find_program(kLegacyHook);
    spec["hooks"]["prestart"].push_back(
        {{"path", path.empty() ? std::string("/usr/bin/") + kLegacyHook : path}, {"args", {kLegacyHook, "prestart"}}});
}

Edits edits_for(const std::vector<std::string> &names) {
    const Driver driver = [] {
        try {
            return find_driver();
        } catch (const NvmlFailure &failure) {
            throw Failure(std::string("failed to initialize NVML: ") + failure.what());
        }
    }();
    Edits edits = common_edits(driver);
    std::vector<DeviceNode> gpus;
    for (const auto &name : names) {
        if (name == "all")
            for (const auto &gpu : driver.gpus)
                gpus.push_back(gpu_node(gpu));
        else
            gpus.push_back(gpu_node(gpu_named(driver, name)));
    }
    edits.nodes.insert(edits.nodes.begin(), gpus.begin(), gpus.end());
    return edits;
}

void inject_at_once(json &spec, const std::vector<std::string> &names) {
    try {
        apply_edits(spec, edits_for(names));
    } catch (const Failure &failure) {
        throw Failure(std::string("failed to create the automatic CDI modifier: failed to generate CDI spec for mode "
                                  "\"auto\": failed to construct device spec generators: ")
                      + failure.what());
    }
}

/* Mode cdi: the same edits, but only for devices which a specification on disk names. */
void inject_by_name(json &spec, const std::vector<std::string> &names) {
    const auto known = cdi_names();
    std::string missing;
    for (const auto &name : names)
        if (std::find(known.begin(), known.end(), "nvidia.com/gpu=" + name) == known.end())
            missing += (missing.empty() ? "" : ", ") + ("nvidia.com/gpu=" + name);
    if (!missing.empty())
        throw Failure("failed to inject CDI devices: unresolvable CDI devices " + missing);
    apply_edits(spec, edits_for(names));
}

void modify(json &spec, const Settings &settings) {
    if (settings.mode == "legacy") {
        add_legacy_hook(spec);
        return;
    }
    if (settings.mode == "csv")
        return;
    const auto names = requested_devices(spec);
    remove_legacy_hooks(spec);
    if (!names)
        return;
    settings.mode == "cdi" ? inject_by_name(spec, *names) : inject_at_once(spec, *names);
}

void modify_bundle(const Call &call, const Settings &settings) {
    const std::string path = call.bundle + "/config.json";
    json spec = json::parse(read_file(path));
    try {
        modify(spec, settings);
    } catch (const Failure &failure) {
        throw Failure(std::string("could not apply required modification to OCI specification: error modifying OCI "
                                  "spec: ")
                      + failure.what());
    }
    write_file(path, spec.dump());
}

int become_runc(const Call &call, const Settings &settings, const Arguments &arguments) {
    std::vector<char *> argv;
    for (const auto &name : settings.runtimes) {
        const std::string path = find_program(name);
        if (path.empty())
            continue;
        argv.push_back(const_cast<char *>(path.c_str()));
        for (const auto &argument : arguments)
            argv.push_back(const_cast<char *>(argument.c_str()));
        argv.push_back(nullptr);
        execv(path.c_str(), argv.data());
        report(call, "could not exec '" + path + "': " + std::strerror(errno));
        return 1;
    }
    report(call, "error constructing low-level runtime: error locating runtime: no runtime binary found from candidate "
                 "list");
    return 1;
}

}  // namespace

int runtime_main(const Arguments &arguments) {
    const Call call = read_call(arguments);
    if (arguments.size() == 1 && (arguments[0] == "--version" || arguments[0] == "-v"))
        std::cout << "NVIDIA Container Runtime version " << kVersion << "\ncommit: stand-in\nspec: 1.3.0\n" << std::endl;
    try {
        const Settings settings = read_settings();
        if (call.create)
            modify_bundle(call, settings);
        return become_runc(call, settings, arguments);
    } catch (const std::exception &error) {
        report(call, error.what());
        return 1;
    }
}
