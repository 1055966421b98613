/* Strikes the calls by which a process changes files: it is killed there, a signal comes, or the
   call fails. Loaded by LD_PRELOAD, it strikes SQLite and safetensors as it strikes Python, and
   costs nothing where nothing is struck. With a journal it notes each change, with its bytes.

   Calls of the main thread are counted from 1, those of all others together too. Reading, pipes and
   sockets are left alone; standard output and error count as files. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, KILL_HALFWAY, SIGNAL, SIGNAL_TWICE, FAIL_ONCE, FAIL_FROM };
enum { PROCEED, FAILED, HALFWAY };

static atomic_int action = NOTHING, value, has_failed, is_halved;
static atomic_long place, of_main, of_others;
static int strikes_others;
static int journal = -1;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* Begins to count, and to strike. `what` is an action, `where` the number of a call, `others` whether
   it is one of another thread than the main one, `which` the signal or error, and `descriptor` a file
   for the journal or -1. */
void strike_from_now(int what, long where, int others, int which, int descriptor) {
  of_main = of_others = 0;
  place = where;
  strikes_others = others;
  value = which;
  has_failed = is_halved = 0;
  journal = descriptor;
  action = what;
}

static int is_main(void) { return syscall(SYS_gettid) == getpid(); }

static int is_file(int descriptor) {
  struct stat found;
  if (descriptor == journal) return 0;
  return syscall(SYS_fstat, descriptor, &found) == 0 && S_ISREG(found.st_mode);
}

static void path_of(int descriptor, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
}

static void path_at(int folder, const char *name, char *path) {
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return;
  }
  char at[PATH_MAX];
  if (folder == AT_FDCWD) {
    if (!getcwd(at, sizeof at)) at[0] = 0;
  } else {
    path_of(folder, at);
  }
  snprintf(path, PATH_MAX, "%.2000s/%.2000s", at, name);
}

static void note(const char *call, const char *path, const char *other, long at, const void *bytes,
                 size_t count) {
  if (journal < 0) return;
  int before = errno;
  char line[2 * PATH_MAX + 128];
  int length = snprintf(line, sizeof line, "%s\t%d\t%s\t%s\t%ld\t%zu\n", call, is_main(), path,
                        other, at, count);
  pthread_mutex_lock(&one_at_a_time);
  syscall(SYS_write, journal, line, length);
  if (count) syscall(SYS_write, journal, bytes, count);
  pthread_mutex_unlock(&one_at_a_time);
  errno = before;
}

/* What becomes of a call. `can_fail` is whether it is one that a full or broken disk fails, and
   `has_bytes` whether half of it can be done. */
static int strike(int can_fail, int has_bytes) {
  if (action == NOTHING && journal < 0) return PROCEED;
  int is_other = !is_main();
  long number = is_other ? ++of_others : ++of_main;
  if (action == FAIL_FROM && has_failed && can_fail) {
    errno = value;
    return FAILED;
  }
  if (is_other != strikes_others || action == NOTHING) return PROCEED;
  long since = number - place;
  if (since == 0 && (action == KILL || action == KILL_HALFWAY)) {
    if (action == KILL_HALFWAY && has_bytes) return HALFWAY;
    syscall(SYS_kill, getpid(), SIGKILL);
  }
  if ((action == SIGNAL && since == 0) || (action == SIGNAL_TWICE && (since == 0 || since == 1)))
    syscall(SYS_tgkill, getpid(), getpid(), (int)value);
  if (can_fail && (action == FAIL_ONCE || action == FAIL_FROM) && since == 0) {
    has_failed = 1;
    errno = value;
    return FAILED;
  }
  return PROCEED;
}

/* A disk that gets full takes a part of the bytes first; whoever writes the rest finds it full. */
static ssize_t written(int descriptor, const void *bytes, size_t count, long at, const char *call) {
  int fate = is_file(descriptor) ? strike(1, 1) : PROCEED;
  int is_positioned = at >= 0;
  if (fate == FAILED && (value != ENOSPC || is_halved || count < 2)) return -1;
  if (fate != PROCEED) {
    ssize_t part = is_positioned ? syscall(SYS_pwrite64, descriptor, bytes, count / 2, at)
                                 : syscall(SYS_write, descriptor, bytes, count / 2);
    if (fate == HALFWAY) syscall(SYS_kill, getpid(), SIGKILL);
    is_halved = 1;
    place = (is_main() ? of_main : of_others) + 1;
    return part;
  }
  long from = at;
  if (journal >= 0 && is_file(descriptor) && !is_positioned) {
    int flags = (int)syscall(SYS_fcntl, descriptor, F_GETFL);
    struct stat found;
    syscall(SYS_fstat, descriptor, &found);
    from = flags & O_APPEND ? (long)found.st_size : (long)syscall(SYS_lseek, descriptor, 0L, SEEK_CUR);
  }
  ssize_t done = is_positioned ? syscall(SYS_pwrite64, descriptor, bytes, count, at)
                            : syscall(SYS_write, descriptor, bytes, count);
  if (journal >= 0 && done > 0 && is_file(descriptor)) {
    char path[PATH_MAX];
    path_of(descriptor, path);
    note(call, path, "", from, bytes, (size_t)done);
  }
  return done;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
  return written(descriptor, bytes, count, -1, "write");
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t at) {
  return written(descriptor, bytes, count, at, "pwrite");
}
ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t at) {
  return written(descriptor, bytes, count, at, "pwrite");
}
/* A part of the bytes is as much as a caller may count on. */
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  if (!is_file(descriptor)) return syscall(SYS_writev, descriptor, parts, count);
  for (int number = 0; number < count; number++)
    if (parts[number].iov_len)
      return written(descriptor, parts[number].iov_base, parts[number].iov_len, -1, "write");
  return 0;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t count) {
  if (!is_file(to)) return syscall(SYS_sendfile, to, from, at, count);
  errno = ENOSYS; /* so that the bytes are written */
  return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t count) { return sendfile64(to, from, at, count); }
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *place_of, size_t count, unsigned flags) {
  errno = ENOSYS;
  return -1;
}

static int on_descriptor(int descriptor, const char *call, long number, long argument, int is_cut) {
  if (strike(1, 0) != PROCEED) return -1;
  long done = is_cut ? syscall(number, descriptor, argument) : syscall(number, descriptor);
  if (done == 0 && journal >= 0) {
    char path[PATH_MAX];
    path_of(descriptor, path);
    note(call, path, "", argument, "", 0);
  }
  return (int)done;
}

int fsync(int descriptor) { return on_descriptor(descriptor, "fsync", SYS_fsync, 0, 0); }
int fdatasync(int descriptor) { return on_descriptor(descriptor, "fsync", SYS_fdatasync, 0, 0); }
int ftruncate64(int descriptor, off64_t size) {
  return on_descriptor(descriptor, "truncate", SYS_ftruncate, size, 1);
}
int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }
int fallocate64(int descriptor, int mode, off64_t at, off64_t size) {
  if (strike(1, 0) != PROCEED) return -1;
  return (int)syscall(SYS_fallocate, descriptor, mode, at, size);
}
int fallocate(int descriptor, int mode, off_t at, off_t size) {
  return fallocate64(descriptor, mode, at, size);
}

static int on_name(const char *call, int folder, const char *name, int other_folder, const char *other,
                   int can_fail, long number, long argument) {
  char path[PATH_MAX], second[PATH_MAX] = "";
  if (strike(can_fail, 0) != PROCEED) return -1;
  if (journal >= 0) {
    path_at(folder, name, path);
    if (other) path_at(other_folder, other, second);
  }
  long done = other ? syscall(number, folder, name, other_folder, other, argument)
                    : syscall(number, folder, name, argument);
  if (done == 0) note(call, path, second, 0, "", 0);
  return (int)done;
}

int renameat2(int folder, const char *name, int to, const char *other, unsigned flags) {
  return on_name("rename", folder, name, to, other, 1, SYS_renameat2, flags);
}
int renameat(int folder, const char *name, int to, const char *other) {
  return renameat2(folder, name, to, other, 0);
}
int rename(const char *name, const char *other) { return renameat2(AT_FDCWD, name, AT_FDCWD, other, 0); }
int unlinkat(int folder, const char *name, int flags) {
  return on_name(flags & AT_REMOVEDIR ? "rmdir" : "unlink", folder, name, 0, NULL, 0, SYS_unlinkat,
                 flags);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int mkdirat(int folder, const char *name, mode_t mode) {
  return on_name("mkdir", folder, name, 0, NULL, 1, SYS_mkdirat, mode);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* A file that is made, or emptied, by being opened. */
static int opened(int folder, const char *name, int flags, mode_t mode) {
  int makes = (flags & (O_WRONLY | O_RDWR)) && (flags & (O_CREAT | O_TRUNC));
  struct stat found;
  if (makes && (action != NOTHING || journal >= 0)) {
    int is_there = syscall(SYS_newfstatat, folder, name, &found, 0) == 0;
    makes = !is_there || ((flags & O_TRUNC) && S_ISREG(found.st_mode));
    if (makes && strike(!is_there, 0) != PROCEED) return -1;
  } else {
    makes = 0;
  }
  int descriptor = (int)syscall(SYS_openat, folder, name, flags, mode);
  if (makes && descriptor >= 0 && journal >= 0) {
    char path[PATH_MAX];
    path_at(folder, name, path);
    note("open", path, "", 0, "", 0);
  }
  return descriptor;
}

static mode_t mode_of(int flags, va_list rest) {
  return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}
#define OPEN(NAME, PARAMETERS, FOLDER)                 \
  int NAME PARAMETERS {                                \
    va_list rest;                                      \
    va_start(rest, flags);                             \
    mode_t mode = mode_of(flags, rest);                \
    va_end(rest);                                      \
    return opened(FOLDER, name, flags, mode);          \
  }
OPEN(open, (const char *name, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *name, int flags, ...), AT_FDCWD)
OPEN(openat, (int folder, const char *name, int flags, ...), folder)
OPEN(openat64, (int folder, const char *name, int flags, ...), folder)
