#include "toolkit.hpp"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace fs = std::filesystem;

namespace {

const char *const kLibraryDirectories[] = {"/usr/lib/x86_64-linux-gnu", "/usr/lib64"};
const char *const kPrograms[] = {"nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control",
                                 "nvidia-cuda-mps-server"};

class Nvml {
  public:
    Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
        if (library_ == nullptr)
            throw NvmlFailure(0, "ERROR_LIBRARY_NOT_FOUND");
        check(call<int (*)(unsigned)>("nvmlInitWithFlags")(0));
    }

    void check(int result) {
        if (result != 0)
            throw NvmlFailure(result, call<const char *(*)(int)>("nvmlErrorString")(result));
    }

    template <typename Function>
    Function call(const char *name) {
        void *found = dlsym(library_, name);
        if (found == nullptr)
            throw NvmlFailure(999, std::string("ERROR_FUNCTION_NOT_FOUND: ") + name);
        return reinterpret_cast<Function>(found);
    }

    std::string text(const char *name, void *device) {
        char value[96];
        check(call<int (*)(void *, char *, unsigned)>(name)(device, value, sizeof value));
        return value;
    }

    Gpu gpu(unsigned index) {
        struct {
            char legacy[16];
            unsigned numbers[5];
            char bus[32];
        } pci;
        void *device = nullptr;
        Gpu found;
        check(call<int (*)(unsigned, void **)>("nvmlDeviceGetHandleByIndex_v2")(index, &device));
        found.uuid = text("nvmlDeviceGetUUID", device);
        found.name = text("nvmlDeviceGetName", device);
        check(call<int (*)(void *, unsigned *)>("nvmlDeviceGetMinorNumber")(device, &found.minor));
        check(call<int (*)(void *, void *)>("nvmlDeviceGetPciInfo_v3")(device, &pci));
        found.bus = pci.bus;
        return found;
    }

  private:
    void *library_;
};

bool is_driver_library(const std::string &name, const std::string &version) {
    const std::string suffix = ".so." + version;
    return starts_with(name, "lib") && name.size() > suffix.size()
           && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

}  // namespace

void load_unified_memory() {
    if (access("/dev/nvidia-uvm", F_OK) == 0 || access("/usr/bin/nvidia-modprobe", X_OK) != 0)
        return;
    const pid_t child = fork();
    if (child == 0) {
        execl("/usr/bin/nvidia-modprobe", "nvidia-modprobe", "-u", "-c=0", nullptr);
        _exit(127);
    }
    if (child > 0)
        waitpid(child, nullptr, 0);
}

Driver find_driver() {
    Nvml nvml;
    Driver driver;
    unsigned count = 0;
    char version[80];
    nvml.check(nvml.call<int (*)(char *, unsigned)>("nvmlSystemGetDriverVersion")(version, sizeof version));
    nvml.check(nvml.call<int (*)(int *)>("nvmlSystemGetCudaDriverVersion_v2")(&driver.cuda));
    nvml.check(nvml.call<int (*)(unsigned *)>("nvmlDeviceGetCount_v2")(&count));
    driver.version = version;
    for (unsigned index = 0; index < count; index++)
        driver.gpus.push_back(nvml.gpu(index));
    for (const char *directory : kLibraryDirectories) {
        if (!fs::is_directory(directory))
            continue;
        for (const auto &entry : fs::directory_iterator(directory))
            if (!entry.is_symlink() && is_driver_library(entry.path().filename(), driver.version))
                driver.libraries.push_back(entry.path());
    }
    std::sort(driver.libraries.begin(), driver.libraries.end());
    for (const char *program : kPrograms)
        if (access((std::string("/usr/bin/") + program).c_str(), X_OK) == 0)
            driver.programs.push_back(std::string("/usr/bin/") + program);
    return driver;
}
