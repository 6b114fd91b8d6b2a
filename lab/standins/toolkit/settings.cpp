/* The few settings in use, read from TOML of the shape that nvidia-ctk itself writes: [section], key = value. */
#include "toolkit.hpp"

#include "default_settings.h"

#include <sstream>

namespace {

const char *const kPath = "/etc/nvidia-container-runtime/config.toml";

std::string strip(const std::string &text) {
    const auto begin = text.find_first_not_of(" \t");
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::string unquote(const std::string &text) {
    return text.size() >= 2 && text.front() == '"' && text.back() == '"' ? text.substr(1, text.size() - 2) : text;
}

/* [section] becomes its name, everything else nothing. */
std::optional<std::string> section_of(const std::string &line) {
    const std::string text = strip(line);
    if (text.size() < 2 || text.front() != '[' || text.back() != ']')
        return std::nullopt;
    return text.substr(1, text.size() - 2);
}

void take(Settings &settings, const std::string &key, const std::string &value) {
    if (key == "disable-require")
        settings.disable_require = value == "true";
    else if (key == "nvidia-container-cli.no-cgroups")
        settings.no_cgroups = value == "true";
    else if (key == "nvidia-container-cli.ldconfig")
        settings.ldconfig = unquote(value);
    else if (key == "nvidia-container-runtime.mode")
        settings.mode = unquote(value);
    else if (key == "nvidia-container-runtime.runtimes" && value.size() > 2) {
        settings.runtimes.clear();
        for (const auto &one : split(value.substr(1, value.size() - 2), ','))
            settings.runtimes.push_back(unquote(strip(one)));
    }
}

}  // namespace

Settings read_settings() {
    Settings settings;
    std::string text, section;
    try {
        text = read_file(kPath);
    } catch (const Failure &) {
        text = kDefaultSettings; /* the real programs run on their defaults, too */
    }
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        if (const auto name = section_of(line)) {
            section = *name + ".";
            continue;
        }
        const auto equals = line.find('=');
        if (equals != std::string::npos && strip(line)[0] != '#')
            take(settings, section + strip(line.substr(0, equals)), strip(line.substr(equals + 1)));
    }
    return settings;
}

std::string set_setting(const std::string &text, const std::string &key, const std::string &value) {
    std::istringstream lines(text);
    std::string section, result;
    bool found = false;
    for (std::string line; std::getline(lines, line);) {
        if (const auto name = section_of(line))
            section = *name + ".";
        const auto equals = line.find('=');
        std::string bare = strip(line.substr(0, std::min(equals, line.size())));
        if (!bare.empty() && bare[0] == '#')
            bare = strip(bare.substr(1));
        if (equals != std::string::npos && section + bare == key && !found) {
            const bool plain = value == "true" || value == "false" || value.front() == '[';
            line = bare + " = " + (plain ? value : "\"" + value + "\"");
            found = true;
        }
        result += line + "\n";
    }
    if (!found)
        throw Failure("failed to set config option: invalid config option: " + key);
    return result;
}
