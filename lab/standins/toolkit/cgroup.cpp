/*
 * Device access behind runc's back, as libnvidia-container does it on cgroup v2: each BPF device program attached to
 * the container's cgroup is replaced by one that first allows NVIDIA's majors.  systemd knows nothing of it, so a
 * `systemctl daemon-reload` applies the unit's own list again and the GPUs are gone.
 */
#include "toolkit.hpp"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <set>

namespace {

constexpr unsigned kMaxPrograms = 16;

long bpf(int command, union bpf_attr &attributes) {
    return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

void must(bool done, const char *what) {
    if (!done)
        throw Failure(std::string("mount error: failed to add device rules: ") + what + ": " + std::strerror(errno));
}

/* /sys/fs/cgroup/… of a process on the unified hierarchy. */
std::string cgroup_of(int pid) {
    for (const auto &line : split(read_file("/proc/" + std::to_string(pid) + "/cgroup"), '\n'))
        if (starts_with(line, "0::"))
            return "/sys/fs/cgroup" + line.substr(3);
    throw Failure("mount error: no unified cgroup");
}

std::vector<unsigned> attached_programs(int cgroup) {
    std::vector<unsigned> ids(kMaxPrograms);
    union bpf_attr attributes = {};
    attributes.query.target_fd = static_cast<unsigned>(cgroup);
    attributes.query.attach_type = BPF_CGROUP_DEVICE;
    attributes.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids.data());
    attributes.query.prog_cnt = kMaxPrograms;
    must(bpf(BPF_PROG_QUERY, attributes) == 0, "bpf_prog_query(BPF_CGROUP_DEVICE)");
    ids.resize(attributes.query.prog_cnt);
    return ids;
}

int open_program(unsigned id) {
    union bpf_attr attributes = {};
    attributes.prog_id = id;
    return static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, attributes));
}

std::vector<bpf_insn> instructions_of(int program) {
    struct bpf_prog_info info = {};
    union bpf_attr attributes = {};
    attributes.info.bpf_fd = static_cast<unsigned>(program);
    attributes.info.info_len = sizeof info;
    attributes.info.info = reinterpret_cast<std::uintptr_t>(&info);
    must(bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) == 0, "bpf_obj_get_info_by_fd");
    std::vector<bpf_insn> code(info.xlated_prog_len / sizeof(bpf_insn));
    info = {};
    info.xlated_prog_len = static_cast<unsigned>(code.size() * sizeof(bpf_insn));
    info.xlated_prog_insns = reinterpret_cast<std::uintptr_t>(code.data());
    must(bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) == 0 && !code.empty(), "bpf_obj_get_info_by_fd");
    return code;
}

bpf_insn instruction(unsigned code, unsigned to, unsigned from, int offset, int value) {
    bpf_insn result = {};
    result.code = static_cast<__u8>(code);
    result.dst_reg = to & 15;
    result.src_reg = from & 15;
    result.off = static_cast<__s16>(offset);
    result.imm = value;
    return result;
}

/* Character devices of these majors are allowed; everything else falls through to what was there. */
std::vector<bpf_insn> prefix(const std::set<unsigned> &majors) {
    std::vector<bpf_insn> code;
    const int count = static_cast<int>(majors.size());
    code.push_back(instruction(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0)); /* r2 = ctx->access_type */
    code.push_back(instruction(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff));
    code.push_back(instruction(BPF_JMP | BPF_JNE | BPF_K, 2, 0, count + 4, BPF_DEVCG_DEV_CHAR));
    code.push_back(instruction(BPF_LDX | BPF_MEM | BPF_W, 3, 1, 4, 0)); /* r3 = ctx->major */
    int left = count;
    for (const unsigned number : majors)
        code.push_back(instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, left--, static_cast<int>(number)));
    code.push_back(instruction(BPF_JMP | BPF_JA, 0, 0, 2, 0));
    code.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1));
    code.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
    return code;
}

int load_program(const std::vector<bpf_insn> &code) {
    static const char license[] = "GPL";
    union bpf_attr attributes = {};
    attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.insns = reinterpret_cast<std::uintptr_t>(code.data());
    attributes.insn_cnt = static_cast<unsigned>(code.size());
    attributes.license = reinterpret_cast<std::uintptr_t>(license);
    return static_cast<int>(bpf(BPF_PROG_LOAD, attributes));
}

void replace_program(int cgroup, int old_program, int new_program) {
    union bpf_attr attributes = {};
    attributes.target_fd = static_cast<unsigned>(cgroup);
    attributes.attach_bpf_fd = static_cast<unsigned>(new_program);
    attributes.attach_type = BPF_CGROUP_DEVICE;
    attributes.attach_flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE;
    attributes.replace_bpf_fd = static_cast<unsigned>(old_program);
    must(bpf(BPF_PROG_ATTACH, attributes) == 0, "bpf_prog_attach");
}

}  // namespace

void allow_devices(int pid, const std::vector<DeviceNode> &nodes) {
    std::set<unsigned> majors;
    for (const auto &node : nodes)
        majors.insert(node.major_number);
    const int cgroup = open(cgroup_of(pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(cgroup >= 0, "open cgroup");
    for (const unsigned id : attached_programs(cgroup)) {
        const int old_program = open_program(id);
        must(old_program >= 0, "bpf_prog_get_fd_by_id");
        std::vector<bpf_insn> code = prefix(majors);
        const std::vector<bpf_insn> rest = instructions_of(old_program);
        code.insert(code.end(), rest.begin(), rest.end());
        const int new_program = load_program(code);
        must(new_program >= 0, "bpf_prog_load");
        replace_program(cgroup, old_program, new_program);
        close(new_program);
        close(old_program);
    }
    close(cgroup);
}
