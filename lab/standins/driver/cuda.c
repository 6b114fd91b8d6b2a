/*
 * Stand-in for NVIDIA's libcuda.so: enough of the driver API to count and name devices.  There is no memory and no launch.
 *
 * The CUDA runtime (libcudart) takes all its functions through cuGetProcAddress, and would need much more than this.  What it
 * gets there says CUDA_ERROR_NO_DEVICE, so a program that uses the runtime, like tritonserver, runs as without a GPU.
 */
#include "gpus.h"

#define CUDA_SUCCESS 0
#define INVALID_VALUE 1
#define NOT_INITIALIZED 3
#define NO_DEVICE 100
#define INVALID_DEVICE 101
#define UNKNOWN 999

#define API __attribute__((visibility("default")))

static struct gpu visible[MAX_GPUS];
static int visible_count = -1;

API int cuInit(unsigned int flags)
{
    struct gpu all[MAX_GPUS];
    int total, found = 0;
    char loaded[64];
    if (flags != 0)
        return INVALID_VALUE;
    module_version(loaded, sizeof loaded);
    if (loaded[0] == '\0' || probe_node("/dev/nvidiactl") != 0)
        return NO_DEVICE;
    total = module_gpus(all);
    for (int i = 0; i < total; i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/nvidia%d", all[i].minor);
        if (probe_node(path) == 0)
            visible[found++] = all[i];
    }
    if (found == 0 || (access("/dev/nvidia-uvm", F_OK) != 0 && geteuid() != 0))
        return UNKNOWN;
    visible_count = found;
    return CUDA_SUCCESS;
}

API int cuDriverGetVersion(int *out)
{
    if (out == NULL)
        return INVALID_VALUE;
    *out = CUDA_VERSION;
    return CUDA_SUCCESS;
}

API int cuDeviceGetCount(int *out)
{
    if (visible_count < 0)
        return NOT_INITIALIZED;
    *out = visible_count;
    return CUDA_SUCCESS;
}

API int cuDeviceGet(int *out, int ordinal)
{
    if (visible_count < 0)
        return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= visible_count)
        return INVALID_DEVICE;
    *out = ordinal;
    return CUDA_SUCCESS;
}

API int cuDeviceGetName(char *out, int size, int device)
{
    if (device < 0 || device >= visible_count)
        return INVALID_DEVICE;
    snprintf(out, (size_t)size, "%s", visible[device].name);
    return CUDA_SUCCESS;
}

API int cuDeviceGetUuid(unsigned char *out, int device)
{
    int index = 0;
    if (device < 0 || device >= visible_count)
        return INVALID_DEVICE;
    for (const char *at = visible[device].uuid + 4; *at != '\0' && index < 16; at++) {
        unsigned int byte;
        if (*at == '-' || sscanf(at, "%2x", &byte) != 1)
            continue;
        out[index++] = (unsigned char)byte;
        at++;
    }
    return CUDA_SUCCESS;
}

API int cuDeviceGetUuid_v2(unsigned char *out, int device) { return cuDeviceGetUuid(out, device); }

/* ---- what tritonserver and its python backend look up by name, and call only for memory on a GPU */

#define REFUSED(name) \
    API int name(void) { return NO_DEVICE; }

REFUSED(cuDevicePrimaryCtxGetState)
REFUSED(cuMemAddressFree)
REFUSED(cuMemAddressReserve)
REFUSED(cuMemCreate)
REFUSED(cuMemMap)
REFUSED(cuMemRelease)
REFUSED(cuMemSetAccess)
REFUSED(cuMemUnmap)
REFUSED(cuPointerGetAttribute)

API int cuMemGetAllocationGranularity(size_t *out, const void *properties, int option)
{
    (void)properties;
    (void)option;
    *out = 2 << 20;
    return CUDA_SUCCESS;
}

API int cuGetErrorString(int error, const char **out)
{
    *out = error == CUDA_SUCCESS ? "no error" : error == NO_DEVICE ? "no CUDA-capable device is detected" : "unknown error";
    return CUDA_SUCCESS;
}

/* ---- for the CUDA runtime */

static int no_device(void) { return NO_DEVICE; }

API int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status)
{
    int (*answer)(void) = no_device;
    (void)version;
    (void)flags;
    if (symbol == NULL || function == NULL)
        return INVALID_VALUE;
    if (strcmp(symbol, "cuDriverGetVersion") == 0)
        answer = (int (*)(void))(void *)cuDriverGetVersion;
    else if (strcmp(symbol, "cuGetProcAddress") == 0)
        answer = (int (*)(void))(void *)cuGetProcAddress_v2;
    memcpy(function, &answer, sizeof answer);
    if (status != NULL)
        *status = 0;
    return CUDA_SUCCESS;
}

API int cuGetProcAddress(const char *symbol, void **function, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
