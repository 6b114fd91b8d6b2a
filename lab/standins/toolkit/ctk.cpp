/* nvidia-ctk: runtime configure, config, cdi. */
#include "toolkit.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

namespace fs = std::filesystem;

namespace {

/* What a Go program does with a nil map or a wrong type. */
struct Panic : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/* ---- Go's encoding/json */

/* Every number passes through a float64: shortest digits, exponent only below 1e-6 and from 1e21 on. */
std::string go_number(double value) {
    char buffer[64];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    std::string text(buffer, end), digits;
    const auto exponent_at = text.find('e');
    const int exponent = std::atoi(text.c_str() + exponent_at + 1);
    if (value == 0 || exponent < -6 || exponent >= 21)
        return value == 0 ? "0" : text;
    const std::string sign = text[0] == '-' ? "-" : "";
    for (const char one : text.substr(0, exponent_at))
        if (one != '-' && one != '.')
            digits += one;
    if (exponent < 0)
        return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole)
        return sign + digits + std::string(whole - digits.size(), '0');
    return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string go_string(const std::string &text) {
    std::string quoted = json(text).dump();
    for (const auto &[from, to] : {std::pair{"<", "\\u003c"}, {">", "\\u003e"}, {"&", "\\u0026"}})
        quoted = replace_all(quoted, from, to);
    return quoted;
}

std::string go_json(const json &value, const std::string &indent) {
    const std::string inner = indent + "    ";
    std::string text;
    if (value.is_object()) {
        for (const auto &[key, one] : value.items())
            text += (text.empty() ? "" : ",\n") + inner + go_string(key) + ": " + go_json(one, inner);
        return text.empty() ? "{}" : "{\n" + text + "\n" + indent + "}";
    }
    if (value.is_array()) {
        for (const auto &one : value)
            text += (text.empty() ? "" : ",\n") + inner + go_json(one, inner);
        return text.empty() ? "[]" : "[\n" + text + "\n" + indent + "]";
    }
    if (value.is_string())
        return go_string(value.get<std::string>());
    return value.is_number() ? go_number(value.get<double>()) : value.dump();
}

std::string character_at(const std::string &text, std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80)
        return std::string(1, text[at]);
    return byte >= 0xc0 ? std::string("\xc3") + static_cast<char>(byte & 0xbf) : std::string(1, '?');
}

/* Like json.Decoder: the first value counts, what follows is dropped. */
json go_parse(const std::string &text) {
    const auto begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string::npos)
        throw Failure("EOF");
    if (static_cast<unsigned char>(text[begin]) >= 0x80)
        throw Failure("invalid character '" + character_at(text, begin) + "' looking for beginning of value");
    std::istringstream stream(text);
    try {
        json value;
        stream >> value;
        return value;
    } catch (const json::parse_error &error) {
        const std::size_t at = error.byte > 0 ? error.byte - 1 : 0;
        if (at >= text.size())
            throw Failure("unexpected EOF");
        const bool key = text[at] == '}' || std::string(error.what()).find("object key") != std::string::npos;
        throw Failure("invalid character '" + character_at(text, at) + "' looking for beginning of "
                      + (key ? "object key string" : "value"));
    }
}

/* ---- runtime configure */

struct Configure {
    std::string runtime = "docker", config = "/etc/docker/daemon.json", name = "nvidia",
                path = "nvidia-container-runtime";
    bool as_default = false, dry_run = false;
    std::optional<bool> cdi;
};

bool flag(const std::string &argument, const std::string &name, bool &value) {
    if (argument != name && !starts_with(argument, name + "="))
        return false;
    value = argument == name || argument == name + "=true";
    return true;
}

Configure read_configure(const Arguments &arguments) {
    Configure wanted;
    for (std::size_t at = 0; at < arguments.size(); at++) {
        bool cdi = false;
        if (flag(arguments[at], "--set-as-default", wanted.as_default)
            || flag(arguments[at], "--nvidia-set-as-default", wanted.as_default)
            || flag(arguments[at], "--dry-run", wanted.dry_run))
            continue;
        if (flag(arguments[at], "--cdi.enabled", cdi) || flag(arguments[at], "--enable-cdi", cdi))
            wanted.cdi = cdi;
        else if (const auto runtime = option(arguments, at, "--runtime"))
            wanted.runtime = *runtime;
        else if (const auto config = option(arguments, at, "--config"))
            wanted.config = *config;
        else if (const auto name = option(arguments, at, "--nvidia-runtime-name"))
            wanted.name = *name;
        else if (const auto path = option(arguments, at, "--nvidia-runtime-path"))
            wanted.path = *path;
        else
            throw Failure("Incorrect Usage: flag provided but not defined: " + arguments[at]);
    }
    if (wanted.runtime != "docker")
        throw Failure("unrecognized runtime '" + wanted.runtime + "' (this stand-in configures docker only)");
    return wanted;
}

json load_config(const std::string &path) {
    struct stat status;
    if (stat(path.c_str(), &status) != 0) {
        log_line("info", "Config file does not exist; using empty config");
        return json::object();
    }
    log_line("info", "Loading config from " + path);
    json config;
    try {
        config = go_parse(read_file(path));
        if (!config.is_object() && !config.is_null())
            throw Failure(std::string("json: cannot unmarshal ") + (config.is_array() ? "array" : config.type_name())
                          + " into Go value of type docker.Config");
    } catch (const Failure &failure) {
        throw Failure(std::string("unable to load config for runtime docker: ") + failure.what());
    }
    return config;
}

void add_runtime(json &config, const Configure &wanted) {
    if (config.is_null())
        throw Panic("assignment to entry in nil map");
    if (config.contains("runtimes") && !config["runtimes"].is_object())
        throw Panic(std::string("interface conversion: interface {} is ")
                    + (config["runtimes"].is_array() ? "[]interface {}" : "nil") + ", not map[string]interface {}");
    config["runtimes"][wanted.name] = {{"path", wanted.path}, {"args", json::array()}};
    if (wanted.as_default)
        config["default-runtime"] = wanted.name;
    if (wanted.cdi.value_or(false)) /* up to 1.20.0 this drops the features that were there */
        config["features"] = {{"cdi", true}};
}

int runtime_configure(const Arguments &arguments) {
    const Configure wanted = read_configure(arguments);
    json config = load_config(wanted.config);
    add_runtime(config, wanted);
    const std::string text = go_json(config, "");
    if (wanted.dry_run) {
        std::cout << text << "\n";
        return 0;
    }
    fs::create_directories(fs::path(wanted.config).parent_path());
    write_file(wanted.config, text);
    log_line("info", "Wrote updated config to " + wanted.config);
    log_line("info", "It is recommended that docker daemon be restarted.");
    return 0;
}

/* ---- config */

/* Comments do not survive; the defaults that nvidia-ctk itself writes as comments do. */
std::string without_comments(const std::string &text) {
    const auto kept = split(kDefaultSettings, '\n');
    std::istringstream lines(text);
    std::string result;
    for (std::string line; std::getline(lines, line);)
        if (!starts_with(line, "#") || std::find(kept.begin(), kept.end(), line) != kept.end())
            result += line + "\n";
    return result;
}

int config_command(const Arguments &arguments) {
    std::string path = "/etc/nvidia-container-runtime/config.toml";
    std::vector<std::string> changes;
    bool in_place = false;
    for (std::size_t at = 0; at < arguments.size(); at++) {
        if (arguments[at] == "--in-place" || arguments[at] == "-i")
            in_place = true;
        else if (const auto change = option(arguments, at, "--set"))
            changes.push_back(*change);
        else if (const auto file = option(arguments, at, "--config-file"))
            path = *file;
    }
    std::string text = fs::exists(path) ? read_file(path) : kDefaultSettings;
    for (const auto &change : changes) {
        const auto equals = change.find('=');
        text = set_setting(text, change.substr(0, equals),
                           equals == std::string::npos ? "true" : change.substr(equals + 1));
    }
    if (in_place)
        write_file(path, without_comments(text));
    else
        std::cout << text;
    return 0;
}

/* ---- cdi */

int cdi_generate(const Arguments &arguments) {
    const char *from_environment = std::getenv("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH");
    std::string output = from_environment != nullptr ? from_environment : "";
    for (std::size_t at = 0; at < arguments.size(); at++)
        if (const auto value = option(arguments, at, "--output"))
            output = *value;
    std::string text;
    try {
        const Driver driver = find_driver();
        load_unified_memory();
        text = cdi_yaml(driver);
    } catch (const NvmlFailure &failure) {
        throw Failure(std::string("failed to generate CDI spec: failed to create device CDI specs: failed to construct "
                                  "device spec generators: failed to initialize NVML: ")
                      + failure.what());
    }
    if (output.empty() || output == "-") {
        std::cout << text;
    } else {
        fs::create_directories(fs::path(output).parent_path());
        write_file(output, text);
    }
    log_line("info", "Generated CDI spec with version 0.5.0");
    return 0;
}

int cdi_list() {
    const auto names = cdi_names();
    log_line("info", "Found " + std::to_string(names.size()) + " CDI devices");
    for (const auto &name : names)
        std::cout << name << "\n";
    return 0;
}

int dispatch(const Arguments &arguments) {
    if (!arguments.empty() && arguments[0] == "--quiet")
        return dispatch(Arguments(arguments.begin() + 1, arguments.end()));
    const std::string first = arguments.empty() ? "" : arguments[0], second = arguments.size() > 1 ? arguments[1] : "";
    const Arguments rest(arguments.begin() + std::min<long>(2, static_cast<long>(arguments.size())), arguments.end());
    if (first == "--version" || first == "-v") {
        std::cout << "NVIDIA Container Toolkit CLI version " << kVersion << "\ncommit: stand-in\n";
        return 0;
    }
    if (first == "runtime" && second == "configure")
        return runtime_configure(rest);
    if (first == "config")
        return config_command(Arguments(arguments.begin() + 1, arguments.end()));
    if (first == "cdi" && second == "generate")
        return cdi_generate(rest);
    if (first == "cdi" && second == "list")
        return cdi_list();
    if (first == "hook")
        return cdi_hook_main(Arguments(arguments.begin() + 1, arguments.end()));
    std::cerr << "No help topic for '" << first << "'\n";
    return 3;
}

}  // namespace

int ctk_main(const Arguments &arguments) {
    try {
        return dispatch(arguments);
    } catch (const Panic &panic) {
        std::cerr << "panic: " << panic.what() << "\n\ngoroutine 1 [running]:\n";
        return 2;
    } catch (const std::exception &error) {
        log_line("error", error.what());
        return 1;
    }
}
