/* What the programs of the toolkit's stand-in share. */
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using nlohmann::json;
using Arguments = std::vector<std::string>;

extern const char *const kVersion;

/* An error whose text goes to the user as it is. */
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/* ---- text.cpp */
std::vector<std::string> split(const std::string &text, char separator);
bool starts_with(const std::string &text, const std::string &prefix);
std::string replace_all(std::string text, const std::string &from, const std::string &to);
std::string read_file(const std::string &path);                      /* throws Failure */
void write_file(const std::string &path, const std::string &text);   /* throws Failure */
std::string find_program(const std::string &name);                   /* empty when it is not on PATH */
std::string lower(std::string text);
void log_line(const std::string &level, const std::string &message); /* logrus' text format, to stderr */
/* The value of `--name=value` or `--name value`; advances `at` over a separate value. */
std::optional<std::string> option(const Arguments &arguments, std::size_t &at, const std::string &name);

/* ---- settings.cpp: /etc/nvidia-container-runtime/config.toml */
extern const char *const kDefaultSettings;
struct Settings {
    std::string mode = "auto";
    std::string ldconfig = "@/sbin/ldconfig";
    std::vector<std::string> runtimes = {"runc", "crun"};
    bool disable_require = false;
    bool no_cgroups = false;
};
Settings read_settings();
/* The file's text with `key` (dotted) set to `value`; throws Failure for a key which it does not hold. */
std::string set_setting(const std::string &text, const std::string &key, const std::string &value);

/* ---- driver.cpp: the host's driver through NVML */
struct Gpu {
    std::string uuid, name, bus;
    unsigned minor = 0;
};
struct Driver {
    std::string version;
    int cuda = 0; /* 13000 for 13.0 */
    std::vector<Gpu> gpus;
    std::vector<std::string> libraries; /* real files */
    std::vector<std::string> programs;
};
/* NVML's result; `code` is 0 when the library is missing. */
struct NvmlFailure : Failure {
    int code;
    NvmlFailure(int nvml_code, const std::string &text) : Failure(text), code(nvml_code) {}
};
Driver find_driver(); /* throws NvmlFailure */
void load_unified_memory(); /* nvidia-uvm and its nodes, when they are missing */

/* ---- edits.cpp: what an injection adds to a container */
struct DeviceNode {
    std::string path;
    unsigned major_number, minor_number;
};
struct Edits {
    std::vector<std::string> env;
    std::vector<DeviceNode> nodes;
    std::vector<std::string> mounts; /* same path on the host and inside */
    std::vector<Arguments> hooks;    /* createContainer */
};
DeviceNode gpu_node(const Gpu &gpu);
std::vector<DeviceNode> control_nodes(); /* those that exist on the host */
std::vector<std::string> links(const Driver &driver); /* TARGET::LINK */
Edits common_edits(const Driver &driver);
void apply_edits(json &spec, const Edits &edits);

/* ---- selection.cpp: NVIDIA_VISIBLE_DEVICES */
std::optional<std::string> environment(const json &spec, const std::string &name);
/* Nothing when the container asks for no driver at all; otherwise its list, empty for "none". */
std::optional<std::vector<std::string>> requested_devices(const json &spec);
/* The GPU behind an index or UUID; throws Failure with NVML's words. */
const Gpu &gpu_named(const Driver &driver, const std::string &name);

/* ---- hooks.cpp: what is done inside a container's mount namespace, before pivot_root */
std::string root_of(const json &state);
void mount_proc_driver(const std::string &root);
void forbid_node_making(const std::string &root);
void make_links(const std::string &root, const std::vector<std::string> &wanted);
void update_ldcache(const std::string &root, const std::string &ldconfig);
void bind_read_only(const std::string &root, const std::string &path);

/* ---- cgroup.cpp */
void allow_devices(int pid, const std::vector<DeviceNode> &nodes);

/* ---- cdi.cpp */
std::string cdi_yaml(const Driver &driver);
std::vector<std::string> cdi_names(); /* of all specs in /etc/cdi and /var/run/cdi */

/* ---- the programs */
int runtime_main(const Arguments &arguments);
int runtime_hook_main(const Arguments &arguments);
int cli_main(const Arguments &arguments);
int cdi_hook_main(const Arguments &arguments);
int ctk_main(const Arguments &arguments);
