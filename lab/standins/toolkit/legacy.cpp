/* The legacy way: nvidia-container-runtime-hook as runc's prestart hook, and the nvidia-container-cli that it starts. */
#include "toolkit.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>

namespace fs = std::filesystem;

namespace {

struct Configuration {
    int pid = 0;
    bool load_kmods = false, no_cgroups = false, compute = false, utility = false;
    std::string ldconfig = "@/sbin/ldconfig", root;
    std::vector<std::string> devices, requirements;
};

[[noreturn]] void refuse(const std::string &message) {
    throw Failure("nvidia-container-cli: " + message);
}

Driver driver_or_refuse() {
    try {
        return find_driver();
    } catch (const NvmlFailure &failure) {
        if (failure.code == 0)
            refuse("initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: no "
                   "such file or directory");
        refuse("initialization error: nvml error: " + lower(failure.what()));
    }
}

/* ---- NVIDIA_REQUIRE_*: words are alternatives, commas inside a word join */

std::vector<int> version_numbers(const std::string &text) {
    std::vector<int> numbers;
    for (const auto &part : split(text, '.'))
        numbers.push_back(std::atoi(part.c_str()));
    numbers.resize(3);
    return numbers;
}

bool compare(const std::string &have, const std::string &operation, const std::string &want) {
    const auto left = version_numbers(have), right = version_numbers(want);
    if (operation == ">=")
        return left >= right;
    if (operation == "<=")
        return left <= right;
    if (operation == "<")
        return left < right;
    if (operation == ">")
        return left > right;
    return operation == "!=" ? left != right : left == right;
}

bool condition_holds(const Driver &driver, const std::string &condition) {
    const auto at = condition.find_first_of("<>=!");
    if (at == std::string::npos)
        return true;
    const std::string name = condition.substr(0, at);
    const auto value_at = condition.find_first_not_of("<>=!", at);
    const std::string operation = condition.substr(at, value_at - at), value = condition.substr(value_at);
    if (name == "brand")
        return (operation == "=") == (lower(value) == "nvidia" || lower(value) == "tesla");
    if (name == "cuda")
        return compare(std::to_string(driver.cuda / 1000) + "." + std::to_string(driver.cuda % 1000 / 10), operation,
                       value);
    return name == "driver" ? compare(driver.version, operation, value) : true;
}

void check_requirement(const Driver &driver, const std::string &requirement) {
    std::string last;
    for (const auto &alternative : split(requirement, ' ')) {
        const auto conditions = split(alternative, ',');
        const auto broken = std::find_if_not(conditions.begin(), conditions.end(),
                                             [&](const auto &one) { return condition_holds(driver, one); });
        if (broken == conditions.end())
            return;
        last = *broken;
    }
    if (!last.empty())
        refuse("requirement error: unsatisfied condition: " + last
               + ", please update your driver to a newer version, or use an earlier cuda container");
}

/* ---- configure */

std::vector<DeviceNode> chosen_nodes(const Driver &driver, const std::vector<std::string> &names) {
    std::vector<DeviceNode> nodes = control_nodes();
    for (const auto &name : names) {
        if (name == "all") {
            for (const auto &gpu : driver.gpus)
                nodes.push_back(gpu_node(gpu));
            continue;
        }
        try {
            nodes.push_back(gpu_node(gpu_named(driver, name)));
        } catch (const Failure &) {
            refuse("device error: " + name + ": unknown device");
        }
    }
    return nodes;
}

bool wanted(const Configuration &configuration, const std::string &path) {
    const std::string name = fs::path(path).filename();
    if (starts_with(name, "libnvidia-ml.") || name == "nvidia-smi" || name == "nvidia-debugdump"
        || name == "nvidia-persistenced")
        return configuration.utility;
    return configuration.compute;
}

void enter_mounts(int pid) {
    const int fd = open(("/proc/" + std::to_string(pid) + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNS) != 0)
        refuse(std::string("mount error: ") + std::strerror(errno));
    close(fd);
}

void make_nodes(const std::string &root, const std::vector<DeviceNode> &nodes) {
    for (const auto &node : nodes) {
        const std::string path = root + node.path;
        if (mknod(path.c_str(), S_IFCHR | 0666, makedev(node.major_number, node.minor_number)) != 0 && errno != EEXIST)
            refuse("mount error: " + path + ": " + std::strerror(errno));
        chmod(path.c_str(), 0666);
    }
}

int configure(const Configuration &configuration) {
    const Driver driver = driver_or_refuse();
    for (const auto &requirement : configuration.requirements)
        check_requirement(driver, requirement);
    if (configuration.load_kmods)
        load_unified_memory();
    const auto nodes = chosen_nodes(driver, configuration.devices);
    if (!configuration.no_cgroups)
        allow_devices(configuration.pid, nodes);
    enter_mounts(configuration.pid);
    mount_proc_driver(configuration.root);
    forbid_node_making(configuration.root);
    make_nodes(configuration.root, nodes);
    for (const auto &list : {driver.programs, driver.libraries})
        for (const auto &path : list)
            if (wanted(configuration, path))
                bind_read_only(configuration.root, path);
    update_ldcache(configuration.root, configuration.ldconfig);
    return 0;
}

Configuration read_configuration(const Arguments &arguments) {
    Configuration configuration;
    for (std::size_t at = 0; at < arguments.size(); at++) {
        if (arguments[at] == "--load-kmods" || arguments[at] == "-k")
            configuration.load_kmods = true;
        else if (arguments[at] == "--compute")
            configuration.compute = true;
        else if (arguments[at] == "--utility")
            configuration.utility = true;
        else if (arguments[at] == "--no-cgroups")
            configuration.no_cgroups = true;
        else if (const auto pid = option(arguments, at, "--pid"))
            configuration.pid = std::atoi(pid->c_str());
        else if (const auto device = option(arguments, at, "--device"))
            configuration.devices = split(*device, ',');
        else if (const auto requirement = option(arguments, at, "--require"))
            configuration.requirements.push_back(*requirement);
        else if (const auto ldconfig = option(arguments, at, "--ldconfig"))
            configuration.ldconfig = *ldconfig;
        else if (arguments[at][0] == '/')
            configuration.root = arguments[at];
    }
    return configuration;
}

int info() {
    const Driver driver = driver_or_refuse();
    std::cout << "NVRM version:   " << driver.version << "\nCUDA version:   " << driver.cuda / 1000 << "."
              << driver.cuda % 1000 / 10 << "\n";
    for (std::size_t index = 0; index < driver.gpus.size(); index++) {
        const Gpu &gpu = driver.gpus[index];
        std::cout << "\nDevice Index:   " << index << "\nDevice Minor:   " << gpu.minor << "\nModel:          " << gpu.name
                  << "\nBrand:          Nvidia\nGPU UUID:       " << gpu.uuid << "\nBus Location:   " << gpu.bus
                  << "\nArchitecture:   9.0\n";
    }
    return 0;
}

int list() {
    const Driver driver = driver_or_refuse();
    for (const auto &node : chosen_nodes(driver, {"all"}))
        std::cout << node.path << "\n";
    for (const auto &files : {driver.programs, driver.libraries})
        for (const auto &path : files)
            std::cout << path << "\n";
    return 0;
}

/* ---- the hook */

Arguments cli_arguments(const json &spec, const std::vector<std::string> &devices, int pid, const std::string &root) {
    const Settings settings = read_settings();
    Arguments arguments = {"nvidia-container-cli", "--load-kmods", "configure", "--ldconfig=" + settings.ldconfig};
    if (settings.no_cgroups)
        arguments.push_back("--no-cgroups");
    std::string names;
    for (const auto &name : devices)
        names += (names.empty() ? "" : ",") + name;
    if (!names.empty())
        arguments.push_back("--device=" + names);
    const std::string capabilities = environment(spec, "NVIDIA_DRIVER_CAPABILITIES").value_or("utility,compute");
    for (const auto &one : split(capabilities == "all" ? "utility,compute" : capabilities, ','))
        if (one == "utility" || one == "compute")
            arguments.push_back("--" + one);
    if (!settings.disable_require && !environment(spec, "NVIDIA_DISABLE_REQUIRE"))
        for (const auto &assignment : spec["process"]["env"]) {
            const std::string text = assignment.get<std::string>();
            if (starts_with(text, "NVIDIA_REQUIRE_"))
                arguments.push_back("--require=" + text.substr(text.find('=') + 1));
        }
    arguments.push_back("--pid=" + std::to_string(pid));
    arguments.push_back(root);
    return arguments;
}

int start(const Arguments &arguments) {
    std::vector<char *> argv;
    for (const auto &argument : arguments)
        argv.push_back(const_cast<char *>(argument.c_str()));
    argv.push_back(nullptr);
    execv("/usr/bin/nvidia-container-cli", argv.data());
    throw Failure(std::string("exec failed: ") + std::strerror(errno));
}

int prestart() {
    const std::string mode = read_settings().mode;
    const std::string given{std::istreambuf_iterator<char>(std::cin), {}};
    const json state = json::parse(given);
    const json spec = json::parse(read_file(state.at("bundle").get<std::string>() + "/config.json"));
    const auto devices = requested_devices(spec);
    if (!devices)
        return 0;
    if (mode == "cdi")
        throw Failure("invoking the NVIDIA Container Runtime Hook directly (e.g. specifying the docker --gpus flag) is "
                      "not supported. Please use the NVIDIA Container Runtime (e.g. specify the --runtime=nvidia flag) "
                      "instead");
    std::cerr << (mode == "auto" ? "Auto-detected mode as 'legacy'\n" : "Using requested mode '" + mode + "'\n");
    return start(cli_arguments(spec, *devices, state.at("pid").get<int>(), root_of(state)));
}

}  // namespace

int runtime_hook_main(const Arguments &arguments) {
    const std::string verb = arguments.empty() ? "" : arguments[0];
    if (verb == "prestart")
        return prestart();
    if (verb == "poststart" || verb == "poststop")
        return 0;
    if (verb == "-version" || verb == "--version") {
        std::cout << "NVIDIA Container Runtime Hook version " << kVersion << "\ncommit: stand-in\n";
        return 0;
    }
    std::cerr << "Usage of nvidia-container-runtime-hook: prestart | poststart | poststop\n";
    return 2;
}

int cli_main(const Arguments &arguments) {
    for (std::size_t at = 0; at < arguments.size(); at++) {
        if (arguments[at] == "--version" || arguments[at] == "-V") {
            std::cout << "cli-version: " << kVersion << "\nlib-version: " << kVersion << "\nbuild revision: stand-in\n";
            return 0;
        }
        if (arguments[at] == "info")
            return info();
        if (arguments[at] == "list")
            return list();
        if (arguments[at] == "configure")
            return configure(read_configuration(arguments));
    }
    std::cerr << "Usage: nvidia-container-cli [-k] info | list | configure --pid=PID ROOT\n";
    return 1;
}
