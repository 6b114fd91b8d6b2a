/*
 * What stands at nvidia.ko: an object with the module's .modinfo only, so that modinfo, depmod and everything that looks
 * into modules.dep find it.  It is never inserted into a kernel.
 */
#define INFO(name, text) \
    static const char name[] __attribute__((section(".modinfo"), used, aligned(1))) = text

INFO(license, "license=" MODULE_LICENSE);
INFO(version, "version=" DRIVER_VERSION);
INFO(description, "description=stand-in, not NVIDIA's module");
INFO(srcversion, "srcversion=57A4D1400000000000000000");
INFO(name, "name=" MODULE_NAME);
#ifdef MODULE_DEPENDS
INFO(depends, "depends=" MODULE_DEPENDS);
#else
INFO(depends, "depends=");
INFO(alias, "alias=pci:v000010DEd*sv*sd*bc03sc02i00*");
#endif
