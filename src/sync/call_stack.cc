// Walking frame pointers, and names for addresses from the ELF symbol table of the module: dladdr knows exported
// symbols only, and nearly all of quire's are hidden. Locks: none (the dynamic loader's, when printing).
#include "sync/call_stack.h"

#ifdef QUIRE_LOCK_VALIDATOR

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace quire {

namespace {

constinit thread_local std::uintptr_t stack_end = 0;

std::uintptr_t find_stack_end() noexcept {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return 1;
  void* base = nullptr;
  std::size_t size = 0;
  pthread_attr_getstack(&attributes, &base, &size);
  pthread_attr_destroy(&attributes);
  return reinterpret_cast<std::uintptr_t>(base) + size;
}

// The module's file mapped for reading, and the function of its symbol table that covers an address.
class ElfFile {
 public:
  explicit ElfFile(const char* path) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    struct stat status {};
    if (fstat(fd, &status) == 0 && status.st_size > static_cast<off_t>(sizeof(Elf64_Ehdr))) {
      size_ = static_cast<std::size_t>(status.st_size);
      void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
      if (mapped != MAP_FAILED) bytes_ = static_cast<const char*>(mapped);
    }
    close(fd);
  }
  ~ElfFile() {
    if (bytes_ != nullptr) munmap(const_cast<char*>(bytes_), size_);
  }
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  // Null if the table is stripped. The name lives as long as this.
  const char* function_at(std::uint64_t address, std::uint64_t* start) const {
    const auto* header = at<Elf64_Ehdr>(0, 1);
    if (header == nullptr || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return nullptr;
    const auto* sections = at<Elf64_Shdr>(header->e_shoff, header->e_shnum);
    if (sections == nullptr) return nullptr;
    for (int i = 0; i < header->e_shnum; ++i) {
      if (sections[i].sh_type != SHT_SYMTAB || sections[i].sh_link >= header->e_shnum) continue;
      const std::uint64_t count = sections[i].sh_size / sizeof(Elf64_Sym);
      const auto* symbols = at<Elf64_Sym>(sections[i].sh_offset, count);
      const Elf64_Shdr& strings = sections[sections[i].sh_link];
      if (symbols == nullptr || at<char>(strings.sh_offset, strings.sh_size) == nullptr) return nullptr;
      for (std::uint64_t s = 0; s < count; ++s) {
        if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC || symbols[s].st_name >= strings.sh_size) continue;
        if (address < symbols[s].st_value || address - symbols[s].st_value >= symbols[s].st_size) continue;
        *start = symbols[s].st_value;
        return bytes_ + strings.sh_offset + symbols[s].st_name;
      }
    }
    return nullptr;
  }

 private:
  template <typename T>
  const T* at(std::uint64_t offset, std::uint64_t count) const {
    if (bytes_ == nullptr || offset > size_ || count > (size_ - offset) / sizeof(T)) return nullptr;
    return reinterpret_cast<const T*>(bytes_ + offset);
  }
  const char* bytes_ = nullptr;
  std::size_t size_ = 0;
};

std::string demangled(const char* name) {
  int status = 0;
  char* readable = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 && readable != nullptr ? readable : name;
  std::free(readable);
  return result;
}

std::string describe(void* return_address) {
  const auto address = reinterpret_cast<std::uintptr_t>(return_address) - 1;  // inside the call, not behind it
  Dl_info info{};
  link_map* module = nullptr;
  char line[64];
  if (dladdr1(reinterpret_cast<void*>(address), &info, reinterpret_cast<void**>(&module), RTLD_DL_LINKMAP) == 0 ||
      module == nullptr) {
    std::snprintf(line, sizeof line, "%p", return_address);
    return line;
  }
  const bool main_program = module->l_name == nullptr || module->l_name[0] == '\0';
  const std::uint64_t offset = address - module->l_addr;
  const ElfFile file(main_program ? "/proc/self/exe" : module->l_name);
  std::string result;
  std::uint64_t start = 0;
  if (const char* name = file.function_at(offset, &start); name != nullptr) {
    std::snprintf(line, sizeof line, "+0x%llx", static_cast<unsigned long long>(offset - start));
    result = demangled(name) + line;
  } else if (info.dli_sname != nullptr) {
    result = demangled(info.dli_sname);
  } else {
    result = "?";
  }
  std::snprintf(line, sizeof line, "+0x%llx)", static_cast<unsigned long long>(offset));
  return result + " (" + (info.dli_fname != nullptr ? info.dli_fname : "?") + line;
}

}  // namespace

__attribute__((no_sanitize("address", "thread", "undefined"))) void CallStack::capture() noexcept {
  if (stack_end == 0) stack_end = find_stack_end();
  depth = 0;
  auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  // A frame pointer leads to {caller's frame pointer, return address}. Code without frame pointers leaves anything in
  // the register: what does not lie further up on this stack is not followed, so every address read is readable.
  for (bool own = true; depth < kMaxFrames; own = false) {
    const auto* words = reinterpret_cast<const std::uintptr_t*>(frame);
    if (!own) {
      if (words[1] < 4096) break;
      frames[depth++] = reinterpret_cast<void*>(words[1]);
    }
    const std::uintptr_t next = words[0];
    if (next <= frame || next % sizeof(void*) != 0 || next + 2 * sizeof(void*) > stack_end) break;
    frame = next;
  }
}

std::string CallStack::to_string() const {
  std::string result;
  for (int i = 0; i < depth; ++i) result += "    #" + std::to_string(i) + " " + describe(frames[i]) + "\n";
  return result;
}

}  // namespace quire

#endif  // QUIRE_LOCK_VALIDATOR
