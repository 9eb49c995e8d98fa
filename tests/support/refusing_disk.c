/* A file system that refuses operations, for whatever library asks: loaded before the C library.

   REFUSED_BELOW    the folder that lies on it
   REFUSED          "flock=37 link=1 ...": names of operations, with the error numbers they get

   Python's own functions could be replaced in Python; those that SQLite calls could not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int number_of(const char *operation) {
    const char *all = getenv("REFUSED");
    size_t length = strlen(operation);
    for (const char *at = all; at && (at = strstr(at, operation)); at += length)
        if (at[length] == '=' && (at == all || at[-1] == ' ')) return atoi(at + length + 1);
    return 0;
}

static int is_below(const char *path) {
    const char *root = getenv("REFUSED_BELOW");
    return root && path && !strncmp(path, root, strlen(root));
}

static int is_refused(const char *operation, const char *path) {
    int number = is_below(path) ? number_of(operation) : 0;
    if (number) errno = number;
    return number;
}

static int is_refused_at(const char *operation, int file) {
    char link[64], path[4096];
    if (file < 0 || !number_of(operation)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_refused(operation, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int flock(int file, int how) {
    return is_refused_at("flock", file) ? -1 : NEXT(flock)(file, how);
}

static int locks(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK;
}

int fcntl(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (locks(command) && is_refused_at("fcntl", file)) return -1;
    return NEXT(fcntl)(file, command, argument);
}

int fcntl64(int file, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (locks(command) && is_refused_at("fcntl", file)) return -1;
    return NEXT(fcntl64)(file, command, argument);
}

/* A mapping that is shared and written to: that of SQLite's WAL. */
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && is_refused_at("mmap", file))
        return MAP_FAILED;
    return NEXT(mmap)(at, size, protection, flags, file, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, off64_t offset) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && is_refused_at("mmap", file))
        return MAP_FAILED;
    return NEXT(mmap64)(at, size, protection, flags, file, offset);
}

int link(const char *from, const char *to) {
    return is_refused("link", to) ? -1 : NEXT(link)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    return is_refused("link", to) ? -1 : NEXT(linkat)(a, from, b, to, flags);
}

int symlink(const char *from, const char *to) {
    return is_refused("symlink", to) ? -1 : NEXT(symlink)(from, to);
}

int symlinkat(const char *from, int folder, const char *to) {
    return is_refused("symlink", to) ? -1 : NEXT(symlinkat)(from, folder, to);
}

int chmod(const char *path, mode_t mode) {
    return is_refused("chmod", path) ? -1 : NEXT(chmod)(path, mode);
}

int fchmodat(int folder, const char *path, mode_t mode, int flags) {
    return is_refused("chmod", path) ? -1 : NEXT(fchmodat)(folder, path, mode, flags);
}

int fsync(int file) {
    struct stat status;
    int is_folder = !fstat(file, &status) && S_ISDIR(status.st_mode);
    return is_refused_at(is_folder ? "fsync-folder" : "fsync", file) ? -1 : NEXT(fsync)(file);
}

int fdatasync(int file) {
    return is_refused_at("fsync", file) ? -1 : NEXT(fdatasync)(file);
}

ssize_t write(int file, const void *data, size_t size) {
    return is_refused_at("write", file) ? -1 : NEXT(write)(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return is_refused_at("write", file) ? -1 : NEXT(pwrite64)(file, data, size, offset);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    return is_refused_at("write", file) ? -1 : NEXT(pwrite)(file, data, size, offset);
}
