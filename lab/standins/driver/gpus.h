/*
 * What the stand-in kernel module says about its GPUs, read from /proc/driver/nvidia as user space reads the
 * real one.  Shared by the stand-ins of libnvidia-ml, libcuda, nvidia-modprobe and nvidia-persistenced.
 */
#ifndef STANDIN_GPUS_H
#define STANDIN_GPUS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PROC_NVIDIA "/proc/driver/nvidia"
#define MAX_GPUS 16
#define NVIDIA_MAJOR 195
#define NVIDIACTL_MINOR 255
#define UVM_MAJOR 238

struct gpu {
    char bus[32];      /* 0000:18:00.0, as the kernel writes it */
    char name[96];
    char uuid[96];
    int minor;
};

/* The value behind "key" (up to the colon or equals sign) in a file of "Key: value" or "key=value" lines. */
static int file_value(const char *path, const char *key, char *value, size_t size)
{
    char line[512];
    size_t length = strlen(key);
    int found = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char *start;
        if (strncmp(line, key, length) != 0 || (line[length] != ':' && line[length] != '='))
            continue;
        start = line + length + 1;
        start += strspn(start, " \t");
        start[strcspn(start, "\n")] = '\0';
        snprintf(value, size, "%s", start);
        found = 1;
    }
    fclose(file);
    return found;
}

/* The version of the loaded module, or an empty string when it is not loaded. */
static void module_version(char *value, size_t size)
{
    char line[512];
    FILE *file = fopen(PROC_NVIDIA "/version", "re");
    value[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(line, sizeof line, file) != NULL) {
        char *word = strtok(line, " \t");
        while (word != NULL && !(word[0] >= '0' && word[0] <= '9' && strchr(word, '.') != NULL))
            word = strtok(NULL, " \t");
        if (word != NULL)
            snprintf(value, size, "%s", word);
    }
    fclose(file);
}

static int by_bus(const void *left, const void *right)
{
    return strcmp(((const struct gpu *)left)->bus, ((const struct gpu *)right)->bus);
}

/* All GPUs the module knows, in PCI order; returns how many. */
static int module_gpus(struct gpu *gpus)
{
    int count = 0;
    struct dirent *entry;
    DIR *directory = opendir(PROC_NVIDIA "/gpus");
    if (directory == NULL)
        return 0;
    while (count < MAX_GPUS && (entry = readdir(directory)) != NULL) {
        char path[384], minor[16] = "";
        struct gpu *gpu = &gpus[count];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, PROC_NVIDIA "/gpus/%s/information", entry->d_name);
        snprintf(gpu->bus, sizeof gpu->bus, "%.31s", entry->d_name);
        if (!file_value(path, "Model", gpu->name, sizeof gpu->name)
            || !file_value(path, "GPU UUID", gpu->uuid, sizeof gpu->uuid)
            || !file_value(path, "Device Minor", minor, sizeof minor))
            continue;
        gpu->minor = atoi(minor);
        count++;
    }
    closedir(directory);
    qsort(gpus, (size_t)count, sizeof gpus[0], by_bus);
    return count;
}

/*
 * 0 when the device node may be used, else errno.  No kernel driver stands behind these nodes, so a permitted
 * open ends in ENXIO; EPERM is the device cgroup's answer and EACCES that of the file's mode, as on a real host.
 */
static int probe_node(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return errno == ENXIO ? 0 : errno;
}

/* Does the module let user space make device nodes?  The toolkit sets this to 0 inside containers. */
static int may_make_nodes(void)
{
    char value[16] = "";
    return file_value(PROC_NVIDIA "/params", "ModifyDeviceFiles", value, sizeof value) && strcmp(value, "1") == 0;
}

/*
 * Make a node and its /dev/char/MAJOR:MINOR link, as nvidia-modprobe does.  The link is what lets runc tell systemd of the
 * device, so that a container keeps it after `systemctl daemon-reload`.
 */
static int make_node(const char *path, unsigned int major_number, unsigned int minor_number)
{
    struct stat status;
    char link[64], target[80];
    dev_t device = makedev(major_number, minor_number);
    if (stat(path, &status) == 0 && !(S_ISCHR(status.st_mode) && status.st_rdev == device))
        unlink(path);
    if (mknod(path, S_IFCHR | 0666, device) != 0 && errno != EEXIST)
        return -1;
    mkdir("/dev/char", 0755);
    snprintf(link, sizeof link, "/dev/char/%u:%u", major_number, minor_number);
    snprintf(target, sizeof target, "../%s", path + strlen("/dev/"));
    if (symlink(target, link) != 0 && errno != EEXIST)
        return -1;
    return chmod(path, 0666);
}

#endif
