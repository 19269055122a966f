/*  vfs.h: a file system in memory under lemon.h, which can fail at any of its calls.  Included before lemon.h, it puts
    itself in the place of the POSIX calls of chapter 1; so fuzzers open no file, and tests can break every single call:

        vfs_reset();                    no files, no faults
        vfs_put("m.lemon", p, n);       a file;  vfs_find("m.lemon") has its bytes
        vfs_break(VFS_EIO, 7);          the seventh call from now on fails;  vfs_calls counts them

    Nothing of it is like a disk but what chapter 1 relies on: rename replaces at once, and what was not renamed yet stands
    under the temporary name. */
#ifndef VFS_H
#define VFS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#if defined(__GNUC__) || defined(__clang__)
#define VFS_UNUSED __attribute__((unused))
#else
#define VFS_UNUSED
#endif

typedef enum vfs_fault {
    VFS_NONE = 0,
    VFS_EIO,        /* that one call fails */
    VFS_FULL,       /* no byte can be written any more, from that call on */
    VFS_EINTR,      /* that one call is interrupted, where a call can be */
    VFS_SHORT,      /* that one call moves a single byte, where it moves any */
    VFS_NO_MAP,     /* nothing can be mapped */
    VFS_POWER       /* from that call on nothing has an effect: what stands on the disk is what a kill leaves */
} vfs_fault;

enum { VFS_FILES = 96, VFS_NAME = 256, VFS_OPEN = 64, VFS_FIRST = 1000 };

typedef struct vfs_file { char name[VFS_NAME]; uint8_t *bytes; size_t size, room; int folder; } vfs_file;
typedef struct vfs_handle { vfs_file *file; size_t at; } vfs_handle;

static vfs_file vfs_files[VFS_FILES];           /* name "": free */
static vfs_handle vfs_handles[VFS_OPEN];
static long vfs_calls, vfs_at;
static vfs_fault vfs_kind;
static int vfs_maps;                            /* mapped and not unmapped again */

VFS_UNUSED static void vfs_break(vfs_fault kind, long call) {
    vfs_kind = kind;
    vfs_at = call;
    vfs_calls = 0;
}

static vfs_file *vfs_find(const char *name) {
    int i;
    for (i = 0; i < VFS_FILES; i++)
        if (vfs_files[i].name[0] && strcmp(vfs_files[i].name, name) == 0) return &vfs_files[i];
    return NULL;
}

static void vfs_drop(vfs_file *file) {
    free(file->bytes);
    memset(file, 0, sizeof *file);
}

VFS_UNUSED static void vfs_reset(void) {
    int i;
    for (i = 0; i < VFS_FILES; i++)
        if (vfs_files[i].name[0]) vfs_drop(&vfs_files[i]);
    memset(vfs_handles, 0, sizeof vfs_handles);
    vfs_break(VFS_NONE, 0);
    vfs_maps = 0;
}

static vfs_file *vfs_make(const char *name, int folder) {
    int i;
    for (i = 0; i < VFS_FILES && vfs_files[i].name[0]; i++) {}
    if (i == VFS_FILES || strlen(name) >= VFS_NAME) return NULL;
    strcpy(vfs_files[i].name, name);
    vfs_files[i].folder = folder;
    return &vfs_files[i];
}

static int vfs_room(vfs_file *file, size_t size) {
    uint8_t *p;
    if (size <= file->room) return 1;
    p = (uint8_t *)realloc(file->bytes, size < 2 * file->room ? 2 * file->room : size);
    if (p == NULL) return 0;
    file->room = size < 2 * file->room ? 2 * file->room : size;
    file->bytes = p;
    return 1;
}

/*  A file of exactly so many bytes, so that a sanitizer sees the one behind them. */
VFS_UNUSED static vfs_file *vfs_put(const char *name, const void *bytes, size_t size) {
    vfs_file *file = vfs_find(name);
    if (file) vfs_drop(file);
    file = vfs_make(name, 0);
    if (file == NULL) return NULL;
    file->bytes = (uint8_t *)malloc(size ? size : 1);
    if (size) memcpy(file->bytes, bytes, size);
    file->size = file->room = size;
    return file;
}

VFS_UNUSED static void vfs_folder(const char *name) { if (!vfs_find(name)) vfs_make(name, 1); }

VFS_UNUSED static int vfs_opened(void) {
    int i, n = 0;
    for (i = 0; i < VFS_OPEN; i++) n += vfs_handles[i].file != NULL;
    return n + vfs_maps;
}

/*  Counts a call; 1 if it is to fail.  moves: it moves bytes; writes: towards the disk. */
static int vfs_fails(int moves, int writes) {
    long call = ++vfs_calls;
    if (vfs_kind == VFS_POWER && call >= vfs_at) { errno = EIO; return 1; }
    if (vfs_kind == VFS_EIO && call == vfs_at) { errno = EIO; return 1; }
    if (vfs_kind == VFS_FULL && call >= vfs_at && writes) { errno = ENOSPC; return 1; }
    if (vfs_kind == VFS_EINTR && call == vfs_at && moves) { errno = EINTR; return 1; }
    return 0;
}

static size_t vfs_some(size_t n) { return vfs_kind == VFS_SHORT && vfs_calls == vfs_at && n > 1 ? 1 : n; }

static vfs_handle *vfs_handle_of(int fd) {
    vfs_handle *h = fd >= VFS_FIRST && fd < VFS_FIRST + VFS_OPEN ? &vfs_handles[fd - VFS_FIRST] : NULL;
    if (h && h->file) return h;
    errno = EBADF;
    return NULL;
}

VFS_UNUSED static int vfs_open(const char *path, int flags, ...) {
    vfs_file *file = vfs_find(path);
    int i, writes = (flags & O_CREAT) != 0;
    if (vfs_fails(0, writes)) return -1;
    if (file && file->folder && writes) { errno = EISDIR; return -1; }
    if (file == NULL && writes) file = vfs_make(path, 0);
    if (file == NULL) { errno = ENOENT; return -1; }
    if (flags & O_TRUNC) file->size = 0;
    for (i = 0; i < VFS_OPEN && vfs_handles[i].file; i++) {}
    if (i == VFS_OPEN) { errno = EMFILE; return -1; }
    vfs_handles[i].file = file;
    vfs_handles[i].at = 0;
    return VFS_FIRST + i;
}

VFS_UNUSED static int vfs_close(int fd) {
    vfs_handle *h = vfs_handle_of(fd);
    int failed = vfs_fails(0, 0);           /* a descriptor is gone even then */
    if (h == NULL) return -1;
    h->file = NULL;
    return failed ? -1 : 0;
}

VFS_UNUSED static int vfs_fstat(int fd, struct stat *info) {
    vfs_handle *h = vfs_handle_of(fd);
    if (vfs_fails(0, 0) || h == NULL) return -1;
    memset(info, 0, sizeof *info);
    info->st_mode = h->file->folder ? S_IFDIR | 0777 : S_IFREG | 0666;
    info->st_size = (off_t)h->file->size;
    return 0;
}

VFS_UNUSED static void *vfs_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    vfs_handle *h = vfs_handle_of(fd);
    (void)at; (void)size; (void)protection; (void)flags; (void)offset;
    if (vfs_fails(0, 0) || h == NULL || vfs_kind == VFS_NO_MAP) return MAP_FAILED;
    vfs_maps++;
    return h->file->bytes;
}

/*  In the place of the C library's: a "mapped" file is a piece of the heap here, of which no page may be dropped. */
int madvise(void *at, size_t size, int advice) {
    (void)at; (void)size; (void)advice;
    return 0;
}

VFS_UNUSED static int vfs_munmap(void *at, size_t size) {
    (void)at; (void)size;
    vfs_maps--;
    return 0;
}

VFS_UNUSED static off_t vfs_lseek(int fd, off_t offset, int from) {
    vfs_handle *h = vfs_handle_of(fd);
    (void)from;
    if (vfs_fails(0, 0) || h == NULL) return -1;
    h->at = (size_t)offset;
    return offset;
}

VFS_UNUSED static ssize_t vfs_read(int fd, void *out, size_t n) {
    vfs_handle *h = vfs_handle_of(fd);
    if (vfs_fails(1, 0) || h == NULL) return -1;
    if (h->at >= h->file->size) return 0;
    if (n > h->file->size - h->at) n = h->file->size - h->at;
    n = vfs_some(n);
    memcpy(out, h->file->bytes + h->at, n);
    h->at += n;
    return (ssize_t)n;
}

VFS_UNUSED static ssize_t vfs_write(int fd, const void *bytes, size_t n) {
    vfs_handle *h = vfs_handle_of(fd);
    if (vfs_fails(1, 1) || h == NULL) return -1;
    n = vfs_some(n);
    if (!vfs_room(h->file, h->at + n)) { errno = ENOSPC; return -1; }
    if (n) memcpy(h->file->bytes + h->at, bytes, n);
    h->at += n;
    h->file->size = h->at;
    return (ssize_t)n;
}

VFS_UNUSED static int vfs_fsync(int fd) { return vfs_fails(0, 1) || vfs_handle_of(fd) == NULL ? -1 : 0; }

VFS_UNUSED static int vfs_remove(const char *path) {
    vfs_file *file = vfs_find(path);
    if (vfs_fails(0, 0)) return -1;
    if (file == NULL) { errno = ENOENT; return -1; }
    vfs_drop(file);
    return 0;
}

/*  A folder moves with what is in it; over a folder nothing can be moved, as if it were full. */
VFS_UNUSED static int vfs_rename(const char *from, const char *to) {
    vfs_file *file = vfs_find(from), *old = vfs_find(to);
    size_t n = strlen(from), m = strlen(to);
    int i;
    if (vfs_fails(0, 0)) return -1;
    if (file == NULL || n >= VFS_NAME || m >= VFS_NAME) { errno = ENOENT; return -1; }
    if (old && (old->folder || file->folder)) { errno = ENOTEMPTY; return -1; }
    if (old) vfs_drop(old);
    for (i = 0; i < VFS_FILES; i++) {
        vfs_file *f = &vfs_files[i];
        char rest[VFS_NAME];
        if (strncmp(f->name, from, n) != 0 || (f != file && !(file->folder && f->name[n] == '/'))) continue;
        if (m + strlen(f->name + n) >= VFS_NAME) { errno = ENAMETOOLONG; return -1; }
        strcpy(rest, f->name + n);
        memcpy(f->name, to, m);
        strcpy(f->name + m, rest);
    }
    return 0;
}

VFS_UNUSED static int vfs_mkdir(const char *path, mode_t mode) {
    (void)mode;
    if (vfs_fails(0, 1)) return -1;
    if (vfs_find(path)) { errno = EEXIST; return -1; }
    if (vfs_make(path, 1)) return 0;
    errno = ENOSPC;
    return -1;
}

VFS_UNUSED static int vfs_rmdir(const char *path) { return vfs_remove(path); }

/*  Names, not calls: some are fields of lemon_reader as well, and become these everywhere. */
#define open vfs_open
#define close vfs_close
#define fstat vfs_fstat
#define mmap vfs_mmap
#define munmap vfs_munmap
#define lseek vfs_lseek
#define read vfs_read
#define write vfs_write
#define fsync vfs_fsync
#define remove vfs_remove
#define rename vfs_rename
#define mkdir vfs_mkdir
#define rmdir vfs_rmdir

#endif
