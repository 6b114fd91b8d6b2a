/*
 * Stand-in for nvidia-persistenced: a forking daemon that turns persistence mode on while it runs.
 *   nvidia-persistenced [--user NAME] [--persistence-mode|--no-persistence-mode] [--verbose] [--version]
 */
#include "gpus.h"
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define RUN_DIRECTORY "/var/run/nvidia-persistenced"

static int set_persistence(int enabled)
{
    struct gpu gpus[MAX_GPUS];
    int count = module_gpus(gpus);
    for (int i = 0; i < count; i++) {
        char path[128];
        FILE *file;
        snprintf(path, sizeof path, PROC_NVIDIA "/gpus/%.31s/persistence", gpus[i].bus);
        file = fopen(path, "r+e");
        if (file == NULL)
            continue;
        fprintf(file, "persistence_mode=%s\n", enabled ? "Enabled" : "Disabled");
        fflush(file);
        if (ftruncate(fileno(file), ftell(file)) != 0)
            perror(path);
        fclose(file);
    }
    return count;
}

static void listen_on_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = RUN_DIRECTORY "/socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(address.sun_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4) != 0)
        perror("nvidia-persistenced: socket");
}

static int become(const char *user)
{
    const struct passwd *entry = user != NULL ? getpwnam(user) : NULL;
    if (user == NULL)
        return 0;
    if (entry == NULL) {
        fprintf(stderr, "nvidia-persistenced failed to initialize. Failed to find user ID of user '%s'.\n", user);
        return -1;
    }
    if (chown(RUN_DIRECTORY, entry->pw_uid, entry->pw_gid) != 0 || setgroups(0, NULL) != 0
        || setgid(entry->pw_gid) != 0)
        return -1;
    /* The real daemon keeps its descriptors; this one writes again at exit, so only the effective user changes. */
    return seteuid(entry->pw_uid);
}

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

static void serve(int mode)
{
    int received = 0;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    sigwait(&signals, &received);
    if (seteuid(0) == 0 && mode)
        set_persistence(0);
    unlink(RUN_DIRECTORY "/nvidia-persistenced.pid");
    unlink(RUN_DIRECTORY "/socket");
}

static int start(const char *user, int mode)
{
    char loaded[64];
    FILE *pid_file;
    pid_t child;
    mkdir(RUN_DIRECTORY, 0755);
    module_version(loaded, sizeof loaded);
    if (loaded[0] == '\0') {
        load_module();
        module_version(loaded, sizeof loaded);
    }
    if (loaded[0] == '\0' || strcmp(loaded, DRIVER_VERSION) != 0 || (mode && set_persistence(1) == 0)) {
        fputs("nvidia-persistenced failed to initialize. Check syslog for more details.\n", stderr);
        return 1;
    }
    child = fork();
    if (child < 0)
        return 1;
    if (child > 0) {
        pid_file = fopen(RUN_DIRECTORY "/nvidia-persistenced.pid", "we");
        if (pid_file == NULL)
            return 1;
        fprintf(pid_file, "%d\n", (int)child);
        fclose(pid_file);
        return 0;
    }
    setsid();
    listen_on_socket();
    if (become(user) != 0)
        _exit(1);
    serve(mode);
    _exit(0);
}

int main(int argc, char **argv)
{
    const char *user = NULL;
    int mode = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--user") == 0 && i + 1 < argc)
            user = argv[++i];
        else if (strncmp(argv[i], "--user=", 7) == 0)
            user = argv[i] + 7;
        else if (strcmp(argv[i], "--no-persistence-mode") == 0)
            mode = 0;
        else if (strcmp(argv[i], "--persistence-mode") == 0)
            mode = 1;
        else if (strcmp(argv[i], "--version") == 0) {
            puts("nvidia-persistenced:  version " DRIVER_VERSION " (stand-in)");
            return 0;
        }
    }
    if (geteuid() != 0) {
        fputs("nvidia-persistenced failed to initialize. The daemon must be run as root.\n", stderr);
        return 1;
    }
    return start(user, mode);
}
