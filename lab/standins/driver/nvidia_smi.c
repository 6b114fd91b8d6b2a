/*
 * Stand-in for nvidia-smi: the options in use, with the real one's texts and exit codes.  It knows nothing about GPUs
 * itself: all comes from libnvidia-ml.so.1, and from fields.h (made of fields.tsv) for what no stand-in GPU can vary.
 */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "fields.h"

#define MAX_SELECTED 64
#define MAX_COLUMNS 300
#define VALUE 256

#define RC_BAD_ARGUMENT 2
#define RC_NOT_FOUND 6
#define RC_DRIVER_NOT_LOADED 9
#define RC_LIBRARY_MISSING 12
#define RC_MISMATCH 18

typedef void *device_t;

static struct {
    int (*init)(unsigned int);
    const char *(*error)(int);
    int (*nvml_version)(char *, unsigned int);
    int (*driver_version)(char *, unsigned int);
    int (*cuda_version)(int *);
    int (*count)(unsigned int *);
    int (*by_index)(unsigned int, device_t *);
    int (*name)(device_t, char *, unsigned int);
    int (*uuid)(device_t, char *, unsigned int);
    int (*minor)(device_t, unsigned int *);
    int (*value)(device_t, const char *, char *, unsigned int);
    int (*set_persistence)(device_t, unsigned int);
} nvml;

struct options {
    const char *query, *query_kind, *format, *id, *persistence;
    int list, version, header, units;
};

static unsigned int selected[MAX_SELECTED];
static unsigned int selected_count;

static int load_nvml(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    struct {
        void *slot;
        const char *name;
    } symbols[] = {
        {&nvml.init, "nvmlInitWithFlags"},
        {&nvml.error, "nvmlErrorString"},
        {&nvml.nvml_version, "nvmlSystemGetNVMLVersion"},
        {&nvml.driver_version, "nvmlSystemGetDriverVersion"},
        {&nvml.cuda_version, "nvmlSystemGetCudaDriverVersion_v2"},
        {&nvml.count, "nvmlDeviceGetCount_v2"},
        {&nvml.by_index, "nvmlDeviceGetHandleByIndex_v2"},
        {&nvml.name, "nvmlDeviceGetName"},
        {&nvml.uuid, "nvmlDeviceGetUUID"},
        {&nvml.minor, "nvmlDeviceGetMinorNumber"},
        {&nvml.value, "standinDeviceValue"},
        {&nvml.set_persistence, "nvmlDeviceSetPersistenceMode"},
    };
    if (library == NULL)
        return 0;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *found = dlsym(library, symbols[i].name);
        if (found == NULL)
            return 0;
        memcpy(symbols[i].slot, &found, sizeof found);
    }
    return 1;
}

static int connect_driver(void)
{
    int result;
    char version[64] = "";
    if (!load_nvml()) {
        puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display "
             "Driver is properly installed and present in your system.\n"
             "Please also try adding directory that contains libnvidia-ml.so to your system PATH.");
        return RC_LIBRARY_MISSING;
    }
    result = nvml.init(0);
    if (result == 0)
        return 0;
    if (result == RC_DRIVER_NOT_LOADED) {
        puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
             "NVIDIA driver is installed and running.\n");
        return result;
    }
    printf("Failed to initialize NVML: %s\n", nvml.error(result));
    if (result == RC_MISMATCH) {
        nvml.nvml_version(version, sizeof version);
        printf("NVML library version: %s\n", version);
    }
    return result > 255 ? 255 : result;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char aliases[VALUE], *alias, *rest = NULL;
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
        snprintf(aliases, sizeof aliases, "%s", fields[i].aliases);
        for (alias = strtok_r(aliases, ",", &rest); alias != NULL; alias = strtok_r(NULL, ",", &rest))
            if (strcmp(alias, name) == 0)
                return &fields[i];
    }
    return NULL;
}

static void raw(unsigned int index, const char *key, char *out, const char *otherwise)
{
    device_t device = NULL;
    if (nvml.by_index(index, &device) != 0 || nvml.value(device, key, out, VALUE) != 0)
        snprintf(out, VALUE, "%s", otherwise);
}

static void timestamp(char *out)
{
    struct timeval now;
    char text[64];
    gettimeofday(&now, NULL);
    strftime(text, sizeof text, "%Y/%m/%d %H:%M:%S", localtime(&now.tv_sec));
    snprintf(out, VALUE, "%s.%03ld", text, (long)(now.tv_usec / 1000));
}

static void bus_part(unsigned int index, int part, const char *format, char *out)
{
    unsigned int numbers[3] = {0, 0, 0};
    char bus[VALUE];
    raw(index, "pci.bus_id", bus, "");
    if (sscanf(bus, "%x:%x:%x", &numbers[0], &numbers[1], &numbers[2]) != 3)
        numbers[part] = 0;
    snprintf(out, VALUE, format, numbers[part]);
}

/* The fields which fields.tsv marks '@'. */
static void own_value(unsigned int index, const char *name, char *out)
{
    unsigned int count = 0;
    char total[VALUE], used[VALUE];
    if (strcmp(name, "timestamp") == 0)
        timestamp(out);
    else if (strcmp(name, "driver_version") == 0)
        nvml.driver_version(out, VALUE);
    else if (strcmp(name, "count") == 0 && nvml.count(&count) == 0)
        snprintf(out, VALUE, "%u", count);
    else if (strcmp(name, "index") == 0)
        snprintf(out, VALUE, "%u", index);
    else if (strcmp(name, "pci.domain") == 0)
        bus_part(index, 0, "0x%04X", out);
    else if (strcmp(name, "pci.bus") == 0)
        bus_part(index, 1, "0x%02X", out);
    else if (strcmp(name, "pci.device") == 0)
        bus_part(index, 2, "0x%02X", out);
    else if (strcmp(name, "memory.free") == 0) {
        raw(index, "memory.total", total, "0");
        raw(index, "memory.used", used, "0");
        snprintf(out, VALUE, "%ld", atol(total) - atol(used));
    } else
        raw(index, name, out, "[N/A]");
}

static void field_value(unsigned int index, const struct field *field, int units, char *out)
{
    char value[VALUE];
    int is_number;
    if (strcmp(field->value, "@") == 0)
        own_value(index, field->name, value);
    else
        raw(index, field->name, value, field->value);
    is_number = isdigit((unsigned char)value[0]) || (value[0] == '-' && isdigit((unsigned char)value[1]));
    if (units && field->unit[0] != '\0' && is_number)
        snprintf(out, VALUE * 2, "%s %s", value, field->unit);
    else
        snprintf(out, VALUE * 2, "%s", value);
}

/* ---- choosing GPUs --------------------------------------------------------------------------------------- */

static int is_chosen(unsigned int index, const char *wanted)
{
    char uuid[VALUE], bus[VALUE], serial[VALUE], *end;
    unsigned long number = strtoul(wanted, &end, 10);
    device_t device;
    if (*end == '\0')
        return number == index;
    if (nvml.by_index(index, &device) != 0 || nvml.uuid(device, uuid, sizeof uuid) != 0)
        return 0;
    raw(index, "pci.bus_id", bus, "");
    raw(index, "serial", serial, "");
    return strcmp(uuid, wanted) == 0 || strcasecmp(bus, wanted) == 0 || strcmp(serial, wanted) == 0
           || (strlen(wanted) == 12 && strlen(bus) > 4 && strcasecmp(bus + 4, wanted) == 0);
}

/* Fills `selected`; 0, or the exit code when nothing is left. */
static int choose(const char *id)
{
    unsigned int count = 0;
    char wanted[1024], *one, *rest = NULL;
    nvml.count(&count);
    if (id == NULL) {
        for (unsigned int i = 0; i < count && i < MAX_SELECTED; i++)
            selected[selected_count++] = i;
        return 0;
    }
    snprintf(wanted, sizeof wanted, "%s", id);
    for (one = strtok_r(wanted, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest)) {
        unsigned int before = selected_count;
        for (unsigned int i = 0; i < count && selected_count < MAX_SELECTED; i++)
            if (is_chosen(i, one))
                selected[selected_count++] = i;
        if (selected_count == before) {
            puts("No devices were found");
            return RC_NOT_FOUND;
        }
    }
    return 0;
}

/* ---- output ---------------------------------------------------------------------------------------------- */

static int list_gpus(void)
{
    for (unsigned int i = 0; i < selected_count; i++) {
        char name[VALUE], uuid[VALUE];
        device_t device;
        if (nvml.by_index(selected[i], &device) != 0 || nvml.name(device, name, sizeof name) != 0
            || nvml.uuid(device, uuid, sizeof uuid) != 0)
            continue;
        printf("GPU %u: %s (UUID: %s)\n", selected[i], name, uuid);
    }
    return 0;
}

static int query_gpu(const struct options *options)
{
    static const struct field *columns[MAX_COLUMNS];
    char names[16384], *name, *rest = NULL, value[VALUE * 2];
    int count = 0;
    snprintf(names, sizeof names, "%s", options->query);
    for (name = strtok_r(names, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest)) {
        const struct field *field = find_field(name);
        if (field == NULL || count == MAX_COLUMNS) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return RC_BAD_ARGUMENT;
        }
        columns[count++] = field;
    }
    for (int i = 0; options->header && i < count; i++) {
        const char *unit = columns[i]->unit;
        printf("%s%s%s%s%s", i == 0 ? "" : ", ", columns[i]->name, *unit ? " [" : "", unit, *unit ? "]" : "");
    }
    if (options->header)
        putchar('\n');
    for (unsigned int row = 0; row < selected_count; row++) {
        for (int i = 0; i < count; i++) {
            field_value(selected[row], columns[i], options->units, value);
            printf("%s%s", i == 0 ? "" : ", ", value);
        }
        putchar('\n');
    }
    return 0;
}

/* --query-remapped-rows and --query-retired-pages: healthy GPUs. */
static int query_health(const struct options *options, const char *const *causes)
{
    char names[1024], *name, *rest;
    for (unsigned int row = 0; row < selected_count; row++) {
        for (const char *const *cause = causes; *cause != NULL; cause++) {
            int first = 1;
            rest = NULL;
            snprintf(names, sizeof names, "%s", options->query);
            for (name = strtok_r(names, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest), first = 0) {
                char value[VALUE * 2];
                const struct field *field = find_field(name);
                if (strcmp(name, "retired_pages.cause") == 0)
                    snprintf(value, sizeof value, "%s", *cause);
                else if (field != NULL)
                    field_value(selected[row], field, options->units, value);
                else
                    snprintf(value, sizeof value, "[N/A]");
                printf("%s%s", first ? "" : ", ", value);
            }
            putchar('\n');
        }
    }
    return 0;
}

static int maps_libcuda(const char *pid)
{
    char path[512], line[1024];
    int found = 0;
    FILE *maps;
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    maps = fopen(path, "re");
    if (maps == NULL)
        return 0;
    while (!found && fgets(line, sizeof line, maps) != NULL)
        found = strstr(line, "/libcuda.so.") != NULL;
    fclose(maps);
    return found;
}

static int uses_gpu(const char *pid, unsigned int index)
{
    char path[512];
    unsigned int minor = 0;
    device_t device;
    if (nvml.by_index(index, &device) != 0 || nvml.minor(device, &minor) != 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%s/root/dev/nvidia%u", pid, minor);
    return access(path, F_OK) == 0;
}

static void print_app(const struct options *options, const char *pid, unsigned int index)
{
    char names[1024], *name, *rest = NULL, path[512], program[512] = "";
    const char *separator = "";
    ssize_t length;
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    length = readlink(path, program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    snprintf(names, sizeof names, "%s", options->query);
    for (name = strtok_r(names, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest), separator = ", ") {
        char value[VALUE * 2] = "[N/A]";
        const char *base = strrchr(program, '/');
        const struct field *field = find_field(name);
        if (strcmp(name, "pid") == 0)
            snprintf(value, sizeof value, "%.200s", pid);
        else if (strcmp(name, "process_name") == 0 || strcmp(name, "name") == 0)
            snprintf(value, sizeof value, "%s", base != NULL ? base + 1 : program);
        else if (strcmp(name, "used_memory") == 0 || strcmp(name, "used_gpu_memory") == 0)
            snprintf(value, sizeof value, "%s", options->units ? "582 MiB" : "582");
        else if (field != NULL)
            field_value(index, field, options->units, value);
        printf("%s%s", separator, value);
    }
    putchar('\n');
}

static void print_app_header(const struct options *options)
{
    char names[1024], *name, *rest = NULL;
    const char *separator = "";
    snprintf(names, sizeof names, "%s", options->query);
    for (name = strtok_r(names, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest), separator = ", ")
        printf("%s%s", separator,
               strcmp(name, "used_memory") == 0 || strcmp(name, "used_gpu_memory") == 0 ? "used_gpu_memory [MiB]" : name);
    putchar('\n');
}

/* A process "computes" when it has mapped libcuda and sees the GPU's device node. */
static int query_apps(const struct options *options)
{
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    if (options->header)
        print_app_header(options);
    while (processes != NULL && (entry = readdir(processes)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !maps_libcuda(entry->d_name))
            continue;
        for (unsigned int i = 0; i < selected_count; i++)
            if (uses_gpu(entry->d_name, selected[i]))
                print_app(options, entry->d_name, selected[i]);
    }
    if (processes != NULL)
        closedir(processes);
    return 0;
}

static void cuda_text(char *out)
{
    int cuda = 0;
    nvml.cuda_version(&cuda);
    snprintf(out, VALUE, "%d.%d", cuda / 1000, cuda % 1000 / 10);
}

static int print_version(void)
{
    char driver[VALUE] = "", library[VALUE] = "", cuda[VALUE];
    nvml.driver_version(driver, sizeof driver);
    nvml.nvml_version(library, sizeof library);
    cuda_text(cuda);
    printf("NVIDIA-SMI version  : %s\nNVML version        : %s\nDRIVER version      : %s\nCUDA Version        : %s\n",
           DRIVER_VERSION, library, driver, cuda);
    return 0;
}

static void table_row(unsigned int index)
{
    char name[VALUE], bus[VALUE], total[VALUE], used[VALUE], persistence[VALUE], memory[VALUE * 3];
    raw(index, "name", name, "");
    raw(index, "pci.bus_id", bus, "");
    raw(index, "memory.total", total, "0");
    raw(index, "memory.used", used, "0");
    raw(index, "persistence_mode", persistence, "Disabled");
    snprintf(memory, sizeof memory, "%sMiB / %6sMiB", used, total);
    printf("| %3u  %-27.27s %5s  | %18s Off | %20s |\n", index, name, strcmp(persistence, "Enabled") == 0 ? "On" : "Off",
           bus, "0");
    printf("| N/A   38C    P0             76W /  700W | %22.22s |      0%%      Default |\n", memory);
    printf("|                                         |                        | %20s |\n", "Disabled");
    puts("+-----------------------------------------+------------------------+----------------------+");
}

static int print_table(void)
{
    char driver[VALUE] = "", cuda[VALUE], now[64];
    time_t seconds = time(NULL);
    nvml.driver_version(driver, sizeof driver);
    cuda_text(cuda);
    strftime(now, sizeof now, "%a %b %e %H:%M:%S %Y", localtime(&seconds));
    printf("%s       \n", now);
    puts("+-----------------------------------------------------------------------------------------+");
    printf("| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |\n", DRIVER_VERSION, driver, cuda);
    puts("+-----------------------------------------+------------------------+----------------------+\n"
         "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
         "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
         "|                                         |                        |               MIG M. |\n"
         "|=========================================+========================+======================|");
    for (unsigned int i = 0; i < selected_count; i++)
        table_row(selected[i]);
    puts("\n+-----------------------------------------------------------------------------------------+\n"
         "| Processes:                                                                              |\n"
         "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |\n"
         "|        ID   ID                                                               Usage      |\n"
         "|=========================================================================================|\n"
         "|  No running processes found                                                             |\n"
         "+-----------------------------------------------------------------------------------------+");
    return 0;
}

static int help_query_gpu(void)
{
    puts("List of valid properties to query for the switch \"--query-gpu\":\n");
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char aliases[VALUE], *alias, *rest = NULL;
        printf("\"%s\"", fields[i].name);
        snprintf(aliases, sizeof aliases, "%s", fields[i].aliases);
        for (alias = strtok_r(aliases, ",", &rest); alias != NULL; alias = strtok_r(NULL, ",", &rest))
            printf(" or \"%s\"", alias);
        puts("\nDescribed in the manual page of the real nvidia-smi.\n");
    }
    return 0;
}

static int usage(void)
{
    printf("NVIDIA System Management Interface -- v%s (stand-in)\n\n"
           "nvidia-smi [-L] [-i ID] [--version] [--help-query-gpu] [--query-gpu=FIELDS --format=csv[,noheader][,nounits]]\n"
           "           [--query-compute-apps=FIELDS ...] [--query-remapped-rows=FIELDS ...] [-pm 0|1]\n"
           "nvidia-smi nvlink -s | topo -m | mig -lgi\n",
           DRIVER_VERSION);
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------------------ */

/* The value of `--name=value`, `--name value` or a short form; NULL when argv[*at] is another option. */
static const char *option_value(char **argv, int *at, const char *name)
{
    size_t length = strlen(name);
    if (strncmp(argv[*at], name, length) != 0)
        return NULL;
    if (argv[*at][length] == '=')
        return argv[*at] + length + 1;
    if (argv[*at][length] == '\0' && argv[*at + 1] != NULL)
        return argv[++*at];
    return NULL;
}

static int read_options(char **argv, struct options *options)
{
    static const char *const kinds[] = {"--query-gpu", "--query-compute-apps", "--query-remapped-rows",
                                        "--query-retired-pages"};
    for (int i = 1; argv[i] != NULL; i++) {
        const char *value = NULL;
        for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0] && value == NULL; kind++)
            if ((value = option_value(argv, &i, kinds[kind])) != NULL) {
                options->query = value;
                options->query_kind = kinds[kind];
            }
        if (value != NULL)
            continue;
        if ((value = option_value(argv, &i, "--format")) != NULL)
            options->format = value;
        else if ((value = option_value(argv, &i, "--id")) != NULL || (value = option_value(argv, &i, "-i")) != NULL)
            options->id = value;
        else if ((value = option_value(argv, &i, "-pm")) != NULL
                 || (value = option_value(argv, &i, "--persistence-mode")) != NULL)
            options->persistence = value;
        else if (strcmp(argv[i], "-L") == 0 || strcmp(argv[i], "--list-gpus") == 0)
            options->list = 1;
        else if (strcmp(argv[i], "--version") == 0)
            options->version = 1;
        else {
            printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
            return RC_BAD_ARGUMENT;
        }
    }
    if (options->query != NULL && (options->format == NULL || strncmp(options->format, "csv", 3) != 0)) {
        printf("\"--format=\" switch is missing. You must specify the output format with this switch.\n\n");
        return RC_BAD_ARGUMENT;
    }
    options->header = options->format != NULL && strstr(options->format, "noheader") == NULL;
    options->units = options->format != NULL && strstr(options->format, "nounits") == NULL;
    return 0;
}

static int subcommand(const char *name)
{
    if (strcmp(name, "nvlink") == 0)
        return 0; /* an H100 without active links prints nothing */
    if (strcmp(name, "mig") == 0) {
        puts("No MIG-enabled devices found.");
        return 0;
    }
    for (unsigned int i = 0; i < selected_count; i++)
        printf("\tGPU%u", selected[i]);
    puts("\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID");
    for (unsigned int i = 0; i < selected_count; i++) {
        printf("GPU%u", selected[i]);
        for (unsigned int j = 0; j < selected_count; j++)
            printf("\t%s", i == j ? " X " : "SYS");
        puts("\t0-1\t0\t\tN/A");
    }
    return 0;
}

static int set_persistence(const char *mode)
{
    int enabled = strcmp(mode, "1") == 0 || strcmp(mode, "ENABLED") == 0;
    for (unsigned int i = 0; i < selected_count; i++) {
        char bus[VALUE];
        device_t device;
        int result = nvml.by_index(selected[i], &device);
        if (result == 0)
            result = nvml.set_persistence(device, (unsigned int)enabled);
        raw(selected[i], "pci.bus_id", bus, "");
        if (result != 0) {
            printf("Unable to set persistence mode for GPU %s: %s\nTerminating early due to previous errors.\n", bus,
                   nvml.error(result));
            return result;
        }
        printf("%s persistence mode for GPU %s.\n", enabled ? "Enabled" : "Disabled", bus);
    }
    puts("All done.");
    return 0;
}

static int answer(const struct options *options)
{
    static const char *const once[] = {"", NULL};
    static const char *const retired[] = {"Single Bit ECC", "Double Bit ECC", NULL};
    if (options->version)
        return print_version();
    if (options->persistence != NULL)
        return set_persistence(options->persistence);
    if (options->query_kind != NULL && strcmp(options->query_kind, "--query-gpu") == 0)
        return query_gpu(options);
    if (options->query_kind != NULL && strcmp(options->query_kind, "--query-compute-apps") == 0)
        return query_apps(options);
    if (options->query_kind != NULL)
        return query_health(options, strstr(options->query_kind, "retired") != NULL ? retired : once);
    return options->list ? list_gpus() : print_table();
}

int main(int argc, char **argv)
{
    struct options options = {0};
    int code;
    int is_subcommand = argc > 1
                        && (strcmp(argv[1], "nvlink") == 0 || strcmp(argv[1], "mig") == 0 || strcmp(argv[1], "topo") == 0);
    if (argc > 1 && strcmp(argv[1], "--help-query-gpu") == 0)
        return help_query_gpu();
    if (argc > 1 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0))
        return usage();
    if (!is_subcommand && (code = read_options(argv, &options)) != 0)
        return code;
    if ((code = connect_driver()) != 0 || (code = choose(options.id)) != 0)
        return code;
    if (selected_count == 0 && !options.version) {
        puts("No devices found.");
        return 0;
    }
    return is_subcommand ? subcommand(argv[1]) : answer(&options);
}
