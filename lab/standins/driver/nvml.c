/*
 * Stand-in for NVIDIA's libnvidia-ml.so: the NVML calls in use, answered from the stand-in kernel module's
 * /proc/driver/nvidia and from the device nodes this process may open.  Return codes are NVML's.
 */
#include "gpus.h"
#include <sys/wait.h>
#include <time.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NO_PERMISSION 4
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define TIMED_OUT 10
#define MISMATCH 18
#define UNKNOWN 999

#define API __attribute__((visibility("default")))

typedef struct gpu *device_t;

static struct gpu visible[MAX_GPUS];
static int visible_count;
static int references;

static void load_module(void)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/usr/bin/nvidia-modprobe", "nvidia-modprobe", "-c=255", (char *)NULL);
        _exit(127);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* NVML run by root makes missing nodes again and opens their mode, unless the module's parameters forbid it. */
static int open_node(const char *path, unsigned int minor_number)
{
    struct stat status;
    int usable = stat(path, &status) == 0 && (status.st_mode & 0777) == 0666;
    if (!usable && geteuid() == 0 && may_make_nodes() && make_node(path, NVIDIA_MAJOR, minor_number) != 0)
        return errno;
    return probe_node(path);
}

static int connect_driver(void)
{
    char loaded[64];
    module_version(loaded, sizeof loaded);
    if (loaded[0] == '\0' && geteuid() == 0 && access("/usr/bin/nvidia-modprobe", X_OK) == 0) {
        load_module();
        module_version(loaded, sizeof loaded);
    }
    if (loaded[0] == '\0')
        return DRIVER_NOT_LOADED;
    switch (open_node("/dev/nvidiactl", NVIDIACTL_MINOR)) {
    case 0:
        break;
    case EACCES:
        return NO_PERMISSION;
    case ENOENT:
        return DRIVER_NOT_LOADED;
    default:
        return UNKNOWN;
    }
    return strcmp(loaded, DRIVER_VERSION) == 0 ? SUCCESS : MISMATCH;
}

static void find_devices(void)
{
    struct gpu all[MAX_GPUS];
    int total = module_gpus(all);
    visible_count = 0;
    for (int i = 0; i < total; i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/nvidia%d", all[i].minor);
        if (open_node(path, (unsigned int)all[i].minor) == 0)
            visible[visible_count++] = all[i];
    }
}

API int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    if (references == 0) {
        int result = connect_driver();
        if (result != SUCCESS)
            return result;
        find_devices();
    }
    references++;
    return SUCCESS;
}

API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void)
{
    if (references == 0)
        return UNINITIALIZED;
    references--;
    return SUCCESS;
}

API const char *nvmlErrorString(int result)
{
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static int put_text(const char *text, char *out, unsigned int size)
{
    if (out == NULL)
        return INVALID_ARGUMENT;
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

#define READY(condition)              \
    do {                              \
        if (references == 0)          \
            return UNINITIALIZED;     \
        if (!(condition))             \
            return INVALID_ARGUMENT;  \
    } while (0)

/* nvidia-smi asks these without a connection to the driver, as the real ones allow. */
API int nvmlSystemGetNVMLVersion(char *out, unsigned int size) { return put_text(NVML_VERSION, out, size); }

API int nvmlSystemGetDriverVersion(char *out, unsigned int size)
{
    READY(out != NULL);
    return put_text(DRIVER_VERSION, out, size);
}

API int nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    if (out == NULL)
        return INVALID_ARGUMENT;
    *out = CUDA_VERSION;
    return SUCCESS;
}

API int nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

API int nvmlDeviceGetCount_v2(unsigned int *out)
{
    READY(out != NULL);
    *out = (unsigned int)visible_count;
    return SUCCESS;
}

API int nvmlDeviceGetCount(unsigned int *out) { return nvmlDeviceGetCount_v2(out); }

API int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t *out)
{
    READY(out != NULL && index < (unsigned int)visible_count);
    *out = &visible[index];
    return SUCCESS;
}

API int nvmlDeviceGetHandleByIndex(unsigned int index, device_t *out)
{
    return nvmlDeviceGetHandleByIndex_v2(index, out);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *out)
{
    READY(uuid != NULL && out != NULL);
    for (int i = 0; i < visible_count; i++)
        if (strcmp(visible[i].uuid, uuid) == 0)
            return nvmlDeviceGetHandleByIndex_v2((unsigned int)i, out);
    return NOT_FOUND;
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, device_t *out)
{
    READY(bus != NULL && out != NULL);
    for (int i = 0; i < visible_count; i++) {
        size_t given = strlen(bus), known = strlen(visible[i].bus);
        if (given >= known && strcasecmp(bus + given - known, visible[i].bus) == 0)
            return nvmlDeviceGetHandleByIndex_v2((unsigned int)i, out);
    }
    return NOT_FOUND;
}

API int nvmlDeviceGetHandleByPciBusId(const char *bus, device_t *out)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus, out);
}

/* Stand-in only: the GPU's datum behind an nvidia-smi field name. */
API int standinDeviceValue(device_t device, const char *key, char *out, unsigned int size)
{
    char path[128], value[256];
    READY(device != NULL && key != NULL);
    snprintf(path, sizeof path, PROC_NVIDIA "/gpus/%s/%s", device->bus,
             strcmp(key, "persistence_mode") == 0 ? "persistence" : "standin");
    if (!file_value(path, key, value, sizeof value))
        return NOT_FOUND;
    return put_text(value, out, size);
}

static int number(device_t device, const char *key, double scale, unsigned long long *out)
{
    char value[64];
    int result = standinDeviceValue(device, key, value, sizeof value);
    if (result != SUCCESS)
        return result == NOT_FOUND ? NOT_SUPPORTED : result;
    *out = (unsigned long long)(strtod(value, NULL) * scale);
    return SUCCESS;
}

static int number_u32(device_t device, const char *key, double scale, unsigned int *out)
{
    unsigned long long value = 0;
    int result;
    READY(device != NULL && out != NULL);
    result = number(device, key, scale, &value);
    if (result == SUCCESS)
        *out = (unsigned int)value;
    return result;
}

API int nvmlDeviceGetName(device_t device, char *out, unsigned int size)
{
    READY(device != NULL);
    return put_text(device->name, out, size);
}

API int nvmlDeviceGetUUID(device_t device, char *out, unsigned int size)
{
    READY(device != NULL);
    return put_text(device->uuid, out, size);
}

API int nvmlDeviceGetSerial(device_t device, char *out, unsigned int size)
{
    return standinDeviceValue(device, "serial", out, size);
}

API int nvmlDeviceGetVbiosVersion(device_t device, char *out, unsigned int size)
{
    return standinDeviceValue(device, "vbios_version", out, size);
}

API int nvmlDeviceGetIndex(device_t device, unsigned int *out)
{
    READY(device != NULL && out != NULL);
    *out = (unsigned int)(device - visible);
    return SUCCESS;
}

API int nvmlDeviceGetMinorNumber(device_t device, unsigned int *out)
{
    READY(device != NULL && out != NULL);
    *out = (unsigned int)device->minor;
    return SUCCESS;
}

struct pci_info {
    char legacy[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

API int nvmlDeviceGetPciInfo_v3(device_t device, struct pci_info *out)
{
    READY(device != NULL && out != NULL);
    memset(out, 0, sizeof *out);
    if (sscanf(device->bus, "%x:%x:%x", &out->domain, &out->bus, &out->device) != 3)
        return UNKNOWN;
    out->device_id = 0x233010DE;
    out->subsystem_id = 0x16C110DE;
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 0xff,
             out->device & 0xff);
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus & 0xff, out->device & 0xff);
    return SUCCESS;
}

API int nvmlDeviceGetPciInfo_v2(device_t device, struct pci_info *out) { return nvmlDeviceGetPciInfo_v3(device, out); }
API int nvmlDeviceGetPciInfo(device_t device, struct pci_info *out) { return nvmlDeviceGetPciInfo_v3(device, out); }

struct memory {
    unsigned long long total, free, used;
};

API int nvmlDeviceGetMemoryInfo(device_t device, struct memory *out)
{
    unsigned long long total = 0, used = 0;
    int result;
    READY(device != NULL && out != NULL);
    result = number(device, "memory.total", 1048576.0, &total);
    if (result != SUCCESS)
        return result;
    (void)number(device, "memory.used", 1048576.0, &used);
    out->total = total;
    out->used = used;
    out->free = total - used;
    return SUCCESS;
}

API int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned int *out)
{
    (void)sensor;
    return number_u32(device, "temperature.gpu", 1.0, out);
}

API int nvmlDeviceGetPowerUsage(device_t device, unsigned int *out)
{
    return number_u32(device, "power.draw", 1000.0, out);
}

API int nvmlDeviceGetEnforcedPowerLimit(device_t device, unsigned int *out)
{
    return number_u32(device, "enforced.power.limit", 1000.0, out);
}

API int nvmlDeviceGetPowerManagementLimit(device_t device, unsigned int *out)
{
    return number_u32(device, "power.limit", 1000.0, out);
}

API int nvmlDeviceGetPersistenceMode(device_t device, unsigned int *out)
{
    char value[32];
    int result;
    READY(device != NULL && out != NULL);
    result = standinDeviceValue(device, "persistence_mode", value, sizeof value);
    *out = result == SUCCESS && strcmp(value, "Enabled") == 0;
    return result;
}

API int nvmlDeviceSetPersistenceMode(device_t device, unsigned int enabled)
{
    char path[128];
    FILE *file;
    READY(device != NULL);
    snprintf(path, sizeof path, PROC_NVIDIA "/gpus/%s/persistence", device->bus);
    if (geteuid() != 0 || (file = fopen(path, "we")) == NULL)
        return NO_PERMISSION;
    fprintf(file, "persistence_mode=%s\n", enabled ? "Enabled" : "Disabled");
    fclose(file);
    return SUCCESS;
}

API int nvmlDeviceGetCudaComputeCapability(device_t device, int *major_out, int *minor_out)
{
    char value[32];
    int result;
    READY(device != NULL && major_out != NULL && minor_out != NULL);
    result = standinDeviceValue(device, "compute_cap", value, sizeof value);
    if (result != SUCCESS)
        return result;
    return sscanf(value, "%d.%d", major_out, minor_out) == 2 ? SUCCESS : UNKNOWN;
}

API int nvmlDeviceGetUtilizationRates(device_t device, unsigned int *gpu_and_memory)
{
    READY(device != NULL && gpu_and_memory != NULL);
    gpu_and_memory[0] = gpu_and_memory[1] = 0;
    return SUCCESS;
}

API int nvmlDeviceGetMigMode(device_t device, unsigned int *current, unsigned int *pending)
{
    READY(device != NULL && current != NULL && pending != NULL);
    *current = *pending = 0;
    return SUCCESS;
}

API int nvmlDeviceGetEccMode(device_t device, unsigned int *current, unsigned int *pending)
{
    READY(device != NULL && current != NULL && pending != NULL);
    *current = *pending = 1;
    return SUCCESS;
}

/* ---- events: none ever happens; DCGM, which tritonserver brings, waits for them */

API int nvmlEventSetCreate(void **set)
{
    static int events;
    READY(set != NULL);
    *set = &events;
    return SUCCESS;
}

API int nvmlEventSetFree(void *set)
{
    (void)set;
    return SUCCESS;
}

API int nvmlDeviceGetSupportedEventTypes(device_t device, unsigned long long *types)
{
    READY(device != NULL && types != NULL);
    *types = 0;
    return SUCCESS;
}

API int nvmlDeviceRegisterEvents(device_t device, unsigned long long types, void *set)
{
    (void)types;
    READY(device != NULL && set != NULL);
    return SUCCESS;
}

API int nvmlEventSetWait_v2(void *set, void *data, unsigned int milliseconds)
{
    struct timespec pause = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    (void)data;
    READY(set != NULL);
    nanosleep(&pause, NULL);
    return TIMED_OUT;
}

API int nvmlEventSetWait(void *set, void *data, unsigned int milliseconds)
{
    return nvmlEventSetWait_v2(set, data, milliseconds);
}
