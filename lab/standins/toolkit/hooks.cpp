/*
 * nvidia-cdi-hook: the steps done as createContainer hooks.  They run with the runtime's rights in the container's mount
 * namespace, where the host's paths are still there, before pivot_root.
 */
#include "toolkit.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>

namespace fs = std::filesystem;

namespace {

const char *const kProcDriver = "/run/nvidia-standin/proc-driver";

void must(bool done, const std::string &what) {
    if (!done)
        throw Failure(what + ": " + std::strerror(errno));
}

}  // namespace

std::string root_of(const json &state) {
    const fs::path bundle = state.at("bundle").get<std::string>();
    const json spec = json::parse(read_file(bundle / "config.json"));
    const fs::path root = spec.at("root").at("path").get<std::string>();
    return root.is_absolute() ? root : bundle / root;
}

/*
 * A container's own procfs has the real module's /proc/driver/nvidia.  The stand-in's is a directory of the host, so
 * it is mounted there; runc refuses such a mount in the specification, a hook may make it.
 */
void mount_proc_driver(const std::string &root) {
    if (!fs::is_directory(kProcDriver) || !fs::is_directory(root + "/proc/driver"))
        return;
    must(mount(kProcDriver, (root + "/proc/driver").c_str(), nullptr, MS_BIND, nullptr) == 0, "mount /proc/driver");
    must(mount(nullptr, (root + "/proc/driver").c_str(), nullptr,
               MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr)
             == 0,
         "remount /proc/driver");
}

void forbid_node_making(const std::string &root) {
    const std::string params = root + "/proc/driver/nvidia/params";
    if (!fs::exists(params))
        return;
    const std::string text = replace_all(read_file(params), "ModifyDeviceFiles: 1", "ModifyDeviceFiles: 0");
    const std::string directory = root + "/run/nvidia-ctk-hook" + std::to_string(getpid());
    fs::create_directories(directory);
    must(mount("tmpfs", directory.c_str(), "tmpfs", 0, "size=4k") == 0, "mount tmpfs");
    write_file(directory + "/nvct-params", text);
    must(mount((directory + "/nvct-params").c_str(), params.c_str(), nullptr, MS_BIND, nullptr) == 0, "mount params");
}

void make_links(const std::string &root, const std::vector<std::string> &wanted) {
    for (const auto &one : wanted) {
        const auto separator = one.find("::");
        if (separator == std::string::npos)
            throw Failure("invalid link specification: " + one);
        const std::string link = root + one.substr(separator + 2);
        fs::create_directories(fs::path(link).parent_path());
        if (fs::symlink_status(link).type() == fs::file_type::not_found)
            fs::create_symlink(one.substr(0, separator), link);
    }
}

void update_ldcache(const std::string &root, const std::string &ldconfig) {
    const std::string program = ldconfig[0] == '@' ? ldconfig.substr(1) : root + ldconfig;
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        execl(program.c_str(), "ldconfig", "-r", root.c_str(), "/usr/lib/x86_64-linux-gnu", nullptr);
        _exit(127);
    }
    must(child > 0 && waitpid(child, &status, 0) == child, "ldconfig");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        throw Failure("ldcache error: open failed: " + program);
}

void bind_read_only(const std::string &root, const std::string &path) {
    const std::string target = root + path;
    fs::create_directories(fs::path(target).parent_path());
    const int fd = open(target.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    must(fd >= 0, "mount error: file creation failed: " + target);
    close(fd);
    must(mount(path.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) == 0, "mount error: " + target);
    must(mount(nullptr, target.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) == 0,
         "mount error: " + target);
}

int cdi_hook_main(const Arguments &arguments) {
    const std::string verb = arguments.empty() ? "" : arguments[0];
    if (verb == "--version") {
        std::cout << "NVIDIA CDI Hook version " << kVersion << " (stand-in)\n";
        return 0;
    }
    const std::string given{std::istreambuf_iterator<char>(std::cin), {}};
    const std::string root = root_of(json::parse(given));
    std::vector<std::string> wanted;
    for (std::size_t at = 1; at < arguments.size(); at++)
        if (const auto link = option(arguments, at, "--link"))
            wanted.push_back(*link);
    if (verb == "create-symlinks")
        make_links(root, wanted);
    else if (verb == "standin-proc-driver")
        mount_proc_driver(root);
    else if (verb == "update-ldcache")
        update_ldcache(root, read_settings().ldconfig);
    else if (verb == "disable-device-node-modification")
        forbid_node_making(root);
    else if (verb != "noop")
        throw Failure("unsupported hook: " + verb);
    return 0;
}
