#include "toolkit.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>

namespace fs = std::filesystem;

namespace {

const char *const kControlNodes[] = {"/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
                                     "/dev/nvidiactl"};
const char *const kSockets[] = {"/run/nvidia-persistenced/socket"};
const char *const kHook = "/usr/bin/nvidia-cdi-hook";

json device_json(const DeviceNode &node) {
    return {{"path", node.path}, {"type", "c"},   {"major", node.major_number}, {"minor", node.minor_number},
            {"fileMode", 438},   {"uid", 0},      {"gid", 0}};
}

json rule_json(const DeviceNode &node) {
    return {{"allow", true},
            {"type", "c"},
            {"major", node.major_number},
            {"minor", node.minor_number},
            {"access", "rwm"}};
}

void set_env(json &env, const std::string &assignment) {
    const std::string name = assignment.substr(0, assignment.find('=') + 1);
    json kept = json::array();
    for (const auto &one : env)
        if (!starts_with(one.get<std::string>(), name))
            kept.push_back(one);
    kept.push_back(assignment);
    env = kept;
}

}  // namespace

DeviceNode gpu_node(const Gpu &gpu) {
    return {"/dev/nvidia" + std::to_string(gpu.minor), 195, gpu.minor};
}

std::vector<DeviceNode> control_nodes() {
    std::vector<DeviceNode> nodes;
    for (const char *path : kControlNodes) {
        struct stat status;
        if (stat(path, &status) == 0 && S_ISCHR(status.st_mode))
            nodes.push_back({path, major(status.st_rdev), minor(status.st_rdev)});
    }
    return nodes;
}

std::vector<std::string> links(const Driver &driver) {
    std::vector<std::string> wanted;
    for (const auto &library : driver.libraries) {
        const std::string file = fs::path(library).filename();
        const std::string bare = library.substr(0, library.size() - driver.version.size() - 1);
        wanted.push_back(file + "::" + bare + ".1");
        wanted.push_back(fs::path(bare).filename().string() + ".1::" + bare);
    }
    return wanted;
}

Edits common_edits(const Driver &driver) {
    Edits edits;
    Arguments symlinks = {kHook, "nvidia-cdi-hook", "create-symlinks"};
    edits.env = {"NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu", "NVIDIA_VISIBLE_DEVICES=void"};
    edits.nodes = control_nodes();
    edits.mounts = driver.programs;
    edits.mounts.insert(edits.mounts.end(), driver.libraries.begin(), driver.libraries.end());
    for (const char *socket : kSockets)
        if (access(socket, F_OK) == 0)
            edits.mounts.push_back(socket);
    for (const auto &link : links(driver)) {
        symlinks.push_back("--link");
        symlinks.push_back(link);
    }
    edits.hooks = {symlinks,
                   {kHook, "nvidia-cdi-hook", "standin-proc-driver"},
                   {kHook, "nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib/x86_64-linux-gnu"},
                   {kHook, "nvidia-cdi-hook", "disable-device-node-modification"}};
    return edits;
}

void apply_edits(json &spec, const Edits &edits) {
    for (const auto &assignment : edits.env)
        set_env(spec["process"]["env"], assignment);
    for (const auto &node : edits.nodes) {
        spec["linux"]["devices"].push_back(device_json(node));
        spec["linux"]["resources"]["devices"].push_back(rule_json(node));
    }
    for (const auto &path : edits.mounts)
        spec["mounts"].push_back({{"destination", path},
                                  {"source", path},
                                  {"type", "bind"},
                                  {"options", {"ro", "nosuid", "nodev", "rbind", "rprivate"}}});
    for (const auto &hook : edits.hooks)
        spec["hooks"]["createContainer"].push_back(
            {{"path", hook.front()}, {"args", Arguments(hook.begin() + 1, hook.end())}});
}
