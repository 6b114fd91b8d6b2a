/*
 * Stand-in for nvidia-modprobe, set-uid root as the real one: loads the module and makes device nodes.
 *   nvidia-modprobe [-u] [-m] [-c=MINOR]... [--version]      (-u: unified memory, -m: modesetting)
 */
#include "gpus.h"
#include <sys/wait.h>

static int load(const char *module)
{
    char *const arguments[] = {"modprobe", (char *)module, NULL};
    char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR); /* the real one keeps modprobe's words to itself, too */
        if (setuid(0) != 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(126);
        execve("/sbin/modprobe", arguments, environment);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int gpu_node(int minor)
{
    char path[64];
    if (minor == NVIDIACTL_MINOR)
        return make_node("/dev/nvidiactl", NVIDIA_MAJOR, NVIDIACTL_MINOR);
    snprintf(path, sizeof path, "/dev/nvidia%d", minor);
    return make_node(path, NVIDIA_MAJOR, (unsigned int)minor);
}

int main(int argc, char **argv)
{
    int unified = 0, modeset = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        unified |= strcmp(argv[i], "-u") == 0 || strcmp(argv[i], "--unified-memory") == 0;
        modeset |= strcmp(argv[i], "-m") == 0 || strcmp(argv[i], "--modeset") == 0;
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0) {
            puts("nvidia-modprobe:  version " DRIVER_VERSION " (stand-in)");
            return 0;
        }
    }
    if (load("nvidia") != 0 || (unified && load("nvidia-uvm") != 0) || (modeset && load("nvidia-modeset") != 0))
        return 1;
    for (int i = 1; i < argc; i++) {
        const char *minor = NULL;
        if (strncmp(argv[i], "-c=", 3) == 0)
            minor = argv[i] + 3;
        else if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
            minor = argv[++i];
        if (minor != NULL)
            failed |= gpu_node(atoi(minor)) != 0;
    }
    if (failed == 0 && argc > 1)
        failed |= gpu_node(NVIDIACTL_MINOR) != 0;
    if (failed == 0 && unified)
        failed |= make_node("/dev/nvidia-uvm", UVM_MAJOR, 0) != 0
                  || make_node("/dev/nvidia-uvm-tools", UVM_MAJOR, 1) != 0;
    return failed;
}
