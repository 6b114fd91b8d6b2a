#include "toolkit.hpp"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>

std::vector<std::string> split(const std::string &text, char separator) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    while (begin <= text.size()) {
        std::size_t end = std::min(text.find(separator, begin), text.size());
        if (end > begin)
            parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

bool starts_with(const std::string &text, const std::string &prefix) {
    return text.compare(0, prefix.size(), prefix) == 0;
}

std::string replace_all(std::string text, const std::string &from, const std::string &to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
        text.replace(at, from.size(), to);
    return text;
}

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), ::tolower);
    return text;
}

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw Failure("open " + path + ": no such file or directory");
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string &path, const std::string &text) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << text;
    if (!file.flush())
        throw Failure("open " + path + ": could not be written");
}

std::string find_program(const std::string &name) {
    if (name.find('/') != std::string::npos)
        return access(name.c_str(), X_OK) == 0 ? name : "";
    const char *path = std::getenv("PATH");
    for (const auto &directory : split(path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin", ':'))
        if (access((directory + "/" + name).c_str(), X_OK) == 0)
            return directory + "/" + name;
    return "";
}

void log_line(const std::string &level, const std::string &message) {
    char now[32];
    const std::time_t seconds = std::time(nullptr);
    std::strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&seconds));
    std::cerr << "time=\"" << now << "\" level=" << level << " msg=" << json(message).dump() << "\n";
}

std::optional<std::string> option(const Arguments &arguments, std::size_t &at, const std::string &name) {
    const std::string &argument = arguments[at];
    if (starts_with(argument, name + "="))
        return argument.substr(name.size() + 1);
    if (argument == name && at + 1 < arguments.size())
        return arguments[++at];
    return std::nullopt;
}
