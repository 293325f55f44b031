// Executes one launch of a kernel, on the CPU: reads what is launched from stdin, writes what then
// is in its buffers to stdout. Compiled with KERNEL_FILE, and with ENTRIES as E(name) for each
// kernel.
#include KERNEL_FILE

#include <string>
#include <sys/mman.h>
#include <tuple>

static void read_bytes(void* to, u64 bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) {
        fprintf(stderr, "the launch ends early\n");
        exit(2);
    }
}

template <typename T> static T read_as() {
    T value;
    read_bytes(&value, sizeof(T));
    return value;
}

// A buffer ends where memory ends, up to what 16 bytes of alignment leave, and begins a page after
// memory that cannot be touched.
struct Buffer {
    u8* at;
    u64 bytes;
};
static std::vector<Buffer> buffers;

static Buffer read_buffer() {
    const u64 page = 4096;
    const u64 bytes = read_as<u64>();
    const u64 room = (bytes + page - 1) / page * page;
    u8* map = static_cast<u8*>(mmap(nullptr, room + 2 * page, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(map + page, room, PROT_READ | PROT_WRITE);
    u8* at = map + page + (room - bytes) / 16 * 16;
    read_bytes(at, bytes);
    return {at, bytes};
}

static void* address(u64 index) {
    if (index >= buffers.size()) {
        fprintf(stderr, "no buffer %llu\n", index);
        exit(2);
    }
    return buffers[index].at;
}

// Pointers are sent as the numbers of buffers, all else as it is.
template <typename T> struct Argument {
    static T read() {
        const u64 word = read_as<u64>();
        T value;
        memcpy(&value, &word, sizeof(T));
        return value;
    }
};
template <typename T> struct Argument<T*> {
    static T* read() { return static_cast<T*>(address(read_as<u64>())); }
};
#ifdef OF_PRODUCTS
template <> struct Argument<GemmArguments> {
    static GemmArguments read() {
        GemmArguments g = read_as<GemmArguments>();
        g.a = static_cast<const u16*>(address(reinterpret_cast<u64>(g.a) / 16));
        g.b = static_cast<const u16*>(address(reinterpret_cast<u64>(g.b) / 16));
        g.c = address(reinterpret_cast<u64>(g.c) / 16);
        return g;
    }
};
#endif

#ifdef OF_TMA_PRODUCTS
template <> struct Argument<TmaProduct> {
    static TmaProduct read() {
        TmaProduct t = read_as<TmaProduct>();
        for (TensorMap* map : {&t.a, &t.b, &t.c}) {
            map->address = static_cast<u8*>(address(reinterpret_cast<u64>(map->address) / 16));
        }
        t.product.c = address(reinterpret_cast<u64>(t.product.c) / 16);
        return t;
    }
};
#endif

template <typename... T> static void launch(void (*kernel)(T...)) {
    // In braces, arguments are read from the first to the last.
    std::tuple<std::remove_const_t<T>...> arguments{Argument<std::remove_const_t<T>>::read()...};
    machine.body = [=] { std::apply(kernel, arguments); };
    for (machine.block = 0; machine.block < machine.blocks; machine.block++) {
        run_block();
    }
}

int main() {
    machine.backwards = read_as<u32>();
    machine.early = read_as<u32>();
    machine.random = read_as<u32>();
    machine.defect = read_as<u32>();
    machine.blocks = read_as<u32>();
    machine.threads.resize(read_as<u32>());
    machine.shared_bytes = read_as<u32>();
    for (u32 left = read_as<u32>(); left > 0; left--) {
        buffers.push_back(read_buffer());
    }
    std::string name(read_as<u32>(), ' ');
    read_bytes(name.data(), name.size());
#define E(entry)                                                                                   \
    if (name == #entry) {                                                                          \
        launch(entry);                                                                             \
    } else
    ENTRIES {
        fprintf(stderr, "no kernel %s\n", name.c_str());
        return 2;
    }
    for (const Buffer& buffer : buffers) {
        fwrite(buffer.at, 1, buffer.bytes, stdout);
    }
}
