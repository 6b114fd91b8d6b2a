/* Stand-in for the programs of NVIDIA's container toolkit: one program, told apart by the name it is called by. */
#include "toolkit.hpp"

#include <filesystem>
#include <iostream>

const char *const kVersion = TOOLKIT_VERSION;

int main(int argc, char **argv) {
    const std::string name = std::filesystem::path(argv[0]).filename();
    const Arguments arguments(argv + 1, argv + argc);
    try {
        if (name == "nvidia-ctk")
            return ctk_main(arguments);
        if (name == "nvidia-cdi-hook")
            return cdi_hook_main(arguments);
        if (name == "nvidia-container-runtime-hook" || name == "nvidia-container-toolkit")
            return runtime_hook_main(arguments);
        if (name == "nvidia-container-cli")
            return cli_main(arguments);
        return runtime_main(arguments);
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
