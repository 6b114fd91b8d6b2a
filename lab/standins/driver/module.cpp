/*
 * Stand-in for NVIDIA's kernel modules.  modprobe calls it through the `install` and `remove` lines that the kernel
 * packages put into modprobe.d.  What a loaded module shows lives in a tmpfs under /run, gone at reboot as a module is:
 *   /proc/driver/nvidia   bind mount of that directory over /proc/driver
 *   /sys/module/<name>    plain directories, since /sys of an nspawn host is a tmpfs without /sys/module
 *   /dev/nvidia*          character nodes with the real numbers; no kernel driver answers behind them
 * All mounts are made in the mount namespace of PID 1, so a modprobe from any session or unit affects the whole host.
 *
 *   module load|unload nvidia|nvidia_uvm|nvidia_modeset|nvidia_drm [open|proprietary]
 *   module refresh nvidia [open|proprietary]    (a loaded module looks at the hardware again: a GPU fell off the bus)
 */
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

extern "C" {
#include "gpus.h"
}

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

const fs::path kHardware = "/usr/share/lab-gpu/gpus.json";
const fs::path kState = "/run/nvidia-standin";
const fs::path kSysModule = "/sys/module";

struct Refused {
    std::string reason; /* strerror's text, as the real modprobe shows it */
};

void write_file(const fs::path &path, const std::string &text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
}

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), ::toupper);
    return text;
}

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), ::tolower);
    return text;
}

/* 00000000:18:00.0 (NVML) to 0000:18:00.0 (the kernel). */
std::string kernel_bus(const std::string &bus) {
    return lower(bus.size() == 16 ? bus.substr(4) : bus);
}

bool has_fault(const json &hardware, const std::string &fault) {
    for (const auto &one : hardware.value("faults", json::array()))
        if (one == fault)
            return true;
    return false;
}

json read_hardware() {
    std::ifstream file(kHardware);
    json hardware = file ? json::parse(file, nullptr, false) : json::object();
    return hardware.is_object() ? hardware : json::object();
}

/* `switched`: behind NVSwitches, a GPU is not ready before the Fabric Manager has set the fabric up. */
void write_gpu(const fs::path &root, const json &gpu, bool switched) {
    const std::string bus = gpu.at("pci"), vbios = gpu.value("vbios", "96.00.A5.00.01");
    const int minor = gpu.value("minor", gpu.value("index", 0));
    const fs::path directory = root / "gpus" / kernel_bus(bus);
    write_file(directory / "information",
               "Model: \t\t " + gpu.at("name").get<std::string>() + "\nIRQ:   \t\t 41\nGPU UUID: \t "
                   + gpu.at("uuid").get<std::string>() + "\nVideo BIOS: \t " + lower(vbios)
                   + "\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t "
                   + kernel_bus(bus) + "\nDevice Minor: \t " + std::to_string(minor)
                   + "\nGPU Firmware: \t " DRIVER_VERSION "\nGPU Excluded:\t No\n");
    std::string text;
    const std::vector<std::pair<std::string, std::string>> known = {
        {"name", gpu.at("name")},
        {"uuid", gpu.at("uuid")},
        {"pci.bus_id", upper(bus)},
        {"serial", gpu.value("serial", "[N/A]")},
        {"vbios_version", vbios},
        {"compute_cap", gpu.value("compute_cap", "9.0")},
        {"memory.total", std::to_string(gpu.value("memory_mib", 81559))},
        {"pci.device_id", gpu.value("pci_device_id", "0x233010DE")},
        {"pci.sub_device_id", gpu.value("pci_sub_device_id", "0x16C110DE")},
    };
    /* First line of a key wins: values set by a test stand before the defaults. */
    const json fields = gpu.value("fields", json::object());
    for (const auto &[key, value] : fields.items())
        text += key + "=" + (value.is_string() ? value.get<std::string>() : value.dump()) + "\n";
    for (const auto &[key, value] : known)
        text += key + "=" + value + "\n";
    if (switched)
        text += "fabric.state=In Progress\nfabric.status=N/A\n";
    text += "memory.used=0\ntemperature.gpu=38\npower.draw=76.79\npower.limit=700.00\nenforced.power.limit=700.00\n";
    write_file(directory / "standin", text);
    write_file(directory / "persistence", "persistence_mode=Disabled\n");
}

void write_proc(const json &hardware, const std::string &flavour) {
    const fs::path root = kState / "proc-driver" / "nvidia";
    const std::string what = flavour == "open" ? "NVIDIA UNIX Open Kernel Module for x86_64  " DRIVER_VERSION
                                                 "  Release Build  (stand-in)"
                                               : "NVIDIA UNIX x86_64 Kernel Module  " DRIVER_VERSION "  (stand-in)";
    write_file(root / "version", "NVRM version: " + what + "  \nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n");
    write_file(root / "params",
               "ResmanDebugLevel: 4294967295\nRmLogonRC: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\n"
               "DeviceFileMode: 438\nEnableGpuFirmware: 18\nOpenRmEnableUnsupportedGpus: 1\nRegistryDwords: \"\"\n");
    fs::create_directories(root / "gpus");
    const json switches = hardware.value("nvswitches", json::array());
    for (const auto &gpu : hardware.value("gpus", json::array()))
        if (!has_fault(hardware, "missing-gpu:" + std::to_string(gpu.value("index", 0))))
            write_gpu(root, gpu, !switches.empty());
    for (const auto &bus : switches)
        write_file(kState / "proc-driver" / "nvidia-nvswitch" / "devices" / bus.get<std::string>(), "");
}

void write_sys(const std::string &module, const std::string &flavour) {
    const fs::path root = kSysModule / module;
    write_file(root / "version", DRIVER_VERSION "\n");
    write_file(root / "srcversion", "57A4D1400000000000000000\n");
    write_file(root / "initstate", "live\n");
    write_file(root / "refcnt", "0\n");
    write_file(root / "taint", flavour == "open" ? "O\n" : "PO\n");
    fs::create_directories(root / "holders");
}

bool loaded(const std::string &module) {
    return fs::exists(kSysModule / module);
}

void make_nodes(const json &hardware) {
    make_node("/dev/nvidiactl", NVIDIA_MAJOR, NVIDIACTL_MINOR);
    for (const auto &gpu : hardware.value("gpus", json::array())) {
        const int minor = gpu.value("minor", gpu.value("index", 0));
        make_node(("/dev/nvidia" + std::to_string(minor)).c_str(), NVIDIA_MAJOR, static_cast<unsigned>(minor));
    }
}

void load_nvidia(const std::string &flavour) {
    const json hardware = read_hardware();
    if (has_fault(hardware, "secure-boot"))
        throw Refused{"Key was rejected by service"};
    if (hardware.value("gpus", json::array()).empty() || loaded("nouveau"))
        throw Refused{"No such device"};
    write_proc(hardware, flavour);
    if (mount((kState / "proc-driver").c_str(), "/proc/driver", nullptr, MS_BIND, nullptr) != 0)
        throw Refused{std::strerror(errno)};
    write_sys("nvidia", flavour);
    make_nodes(hardware);
}

void load(const std::string &module, const std::string &flavour) {
    if (loaded(module))
        return;
    if (!loaded("nvidia"))
        load_nvidia(flavour);
    if (module == "nvidia")
        return;
    if (module == "nvidia_drm" && !loaded("nvidia_modeset"))
        load("nvidia_modeset", flavour);
    write_sys(module, flavour);
    fs::create_directories(kSysModule / (module == "nvidia_drm" ? "nvidia_modeset" : "nvidia") / "holders" / module);
    if (module == "nvidia_uvm") {
        make_node("/dev/nvidia-uvm", UVM_MAJOR, 0);
        make_node("/dev/nvidia-uvm-tools", UVM_MAJOR, 1);
    }
    if (module == "nvidia_modeset")
        make_node("/dev/nvidia-modeset", NVIDIA_MAJOR, 254);
}

/* A process holds the module when it has NVIDIA's libraries mapped; no descriptor can be open on the nodes. */
bool maps_driver(const fs::path &process) {
    std::ifstream maps(process / "maps");
    for (std::string line; std::getline(maps, line);)
        if (line.find("/libnvidia-ml.so.") != std::string::npos || line.find("/libcuda.so.") != std::string::npos)
            return true;
    return false;
}

bool persistenced_runs() {
    std::ifstream file("/run/nvidia-persistenced/nvidia-persistenced.pid");
    pid_t pid = 0;
    return (file >> pid) && pid > 0 && kill(pid, 0) == 0;
}

bool in_use(const std::string &module) {
    if (!fs::is_empty(kSysModule / module / "holders"))
        return true;
    if (module == "nvidia_modeset" || module == "nvidia_drm")
        return false;
    for (const auto &entry : fs::directory_iterator("/proc"))
        if (std::isdigit(static_cast<unsigned char>(entry.path().filename().string()[0])) && maps_driver(entry.path()))
            return true;
    return module == "nvidia" && persistenced_runs();
}

void refresh(const std::string &flavour) {
    if (!loaded("nvidia"))
        return;
    fs::remove_all(kState / "proc-driver" / "nvidia" / "gpus");
    write_proc(read_hardware(), flavour);
}

void unload(const std::string &module) {
    if (!loaded(module))
        return;
    if (in_use(module))
        throw Refused{"in use"};
    fs::remove_all(kSysModule / module);
    for (const auto &other : {"nvidia", "nvidia_modeset"})
        if (loaded(other))
            fs::remove_all(kSysModule / other / "holders" / module);
    if (module != "nvidia")
        return;
    umount2("/proc/driver", MNT_DETACH);
    fs::remove_all(kState);
}

void enter_host() {
    const int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && setns(fd, CLONE_NEWNS) == 0)
        close(fd);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        std::cerr << "usage: module load|unload|refresh NAME [open|proprietary]\n";
        return 2;
    }
    const std::string verb = argv[1], flavour = argc > 3 ? argv[3] : "open";
    std::string module = argv[2];
    std::replace(module.begin(), module.end(), '-', '_');
    umask(022);
    enter_host();
    try {
        if (verb == "load")
            load(module, flavour);
        else if (verb == "refresh")
            refresh(flavour);
        else
            unload(module);
        return 0;
    } catch (const Refused &refused) {
        if (verb == "load")
            std::cerr << "modprobe: ERROR: could not insert '" << module << "': " << refused.reason << "\n";
        else
            std::cerr << "modprobe: FATAL: Module " << module << " is in use.\n";
    } catch (const std::exception &error) {
        std::cerr << "modprobe: ERROR: could not " << verb << " '" << module << "': " << error.what() << "\n";
    }
    return 1;
}
