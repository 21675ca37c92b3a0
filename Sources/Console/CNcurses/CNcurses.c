#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define _XOPEN_SOURCE_EXTENDED 1
#define NCURSES_WIDECHAR 1

#include "CNcurses.h"
#include "CProcesses.h"
#include "DirectColorTerminfo.h"

#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

extern char **environ;

static SCREEN *screen;
static WINDOW *key_pad;           // keys are read from here: reading from stdscr would push half-drawn cells out
static bool direct_color;
static bool direct_is_builtin;
static int wanted_modes;
static int cursor_column = -1, cursor_row;
static bool cursor_shown;
static bool suspended;

// What the crash handler needs; only words and plain memory.
static volatile sig_atomic_t screen_is_active;
static struct termios saved_termios;
static volatile sig_atomic_t have_saved_termios;
static volatile sig_atomic_t captured_fd = -1, original_stderr = -1;

// MARK: Locale

bool qd_set_locale(void) {
    setlocale(LC_ALL, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") == 0) return true;
    // A person whose terminal is not UTF-8 has set a locale that says so; an empty or C locale says nothing.
    const char *current = setlocale(LC_CTYPE, NULL);
    bool says_nothing = current == NULL || strcmp(current, "C") == 0 || strcmp(current, "POSIX") == 0;
    if (says_nothing && (setlocale(LC_CTYPE, "C.UTF-8") || setlocale(LC_CTYPE, "en_US.UTF-8"))) {
        return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    }
    return false;
}

// MARK: Raw output

static void write_all(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t n = write(fd, bytes, count);
        if (n > 0) {
            bytes += n;
            count -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            if (poll(&p, 1, 1000) <= 0) return;
        } else if (!(n < 0 && errno == EINTR)) {
            return;
        }
    }
}

void qd_write(const char *bytes, size_t count) { write_all(STDOUT_FILENO, bytes, count); }
#define WRITE_CONSTANT(fd, text) write_all(fd, text, sizeof(text) - 1)

#define MODES_OFF "\033[?2026l\033[?1006l\033[?1002l\033[?1000l\033[?2004l\033[?1004l"
static const char restore_text[] = MODES_OFF "\033[?25h\033(B\033[m\033[?1l\033>\033[?1049l\r";

static void modes_on(int modes) {
    if (modes & QD_MODE_MOUSE) WRITE_CONSTANT(STDOUT_FILENO, "\033[?1000h\033[?1002h\033[?1006h");
    if (modes & QD_MODE_PASTE) WRITE_CONSTANT(STDOUT_FILENO, "\033[?2004h");
    if (modes & QD_MODE_FOCUS) WRITE_CONSTANT(STDOUT_FILENO, "\033[?1004h");
}

void qd_set_modes(int modes) {
    int off = wanted_modes & ~modes, on = modes & ~wanted_modes;
    wanted_modes = modes;
    if (!screen || suspended) return;
    if (off & QD_MODE_MOUSE) WRITE_CONSTANT(STDOUT_FILENO, "\033[?1006l\033[?1002l\033[?1000l");
    if (off & QD_MODE_PASTE) WRITE_CONSTANT(STDOUT_FILENO, "\033[?2004l");
    if (off & QD_MODE_FOCUS) WRITE_CONSTANT(STDOUT_FILENO, "\033[?1004l");
    modes_on(on);
}

// MARK: Keys

static void define(const char *sequence, int code) { define_key(sequence, code); }

static int key_code(int kind, int modifiers) { return QD_KEY_BASE + kind * 8 + modifiers; }

/// xterm's sequences, which nearly every terminal sends today; terminfo adds whatever else this one has. A modifier parameter of 2
/// is shift, 3 alt, 5 control, and their sums.
static void define_keys(void) {
    static const struct { int kind; char final; } letters[] = {
        {QD_KEY_UP, 'A'}, {QD_KEY_DOWN, 'B'}, {QD_KEY_RIGHT, 'C'}, {QD_KEY_LEFT, 'D'}, {QD_KEY_END, 'F'}, {QD_KEY_HOME, 'H'},
        {QD_KEY_F1, 'P'}, {QD_KEY_F1 + 1, 'Q'}, {QD_KEY_F1 + 2, 'R'}, {QD_KEY_F1 + 3, 'S'},
    };
    static const struct { int kind; int number; } numbers[] = {
        {QD_KEY_HOME, 1}, {QD_KEY_INSERT, 2}, {QD_KEY_DELETE, 3}, {QD_KEY_END, 4}, {QD_KEY_PAGE_UP, 5}, {QD_KEY_PAGE_DOWN, 6},
        {QD_KEY_HOME, 7}, {QD_KEY_END, 8}, {QD_KEY_F1 + 4, 15}, {QD_KEY_F1 + 5, 17}, {QD_KEY_F1 + 6, 18}, {QD_KEY_F1 + 7, 19},
        {QD_KEY_F1 + 8, 20}, {QD_KEY_F1 + 9, 21}, {QD_KEY_F1 + 10, 23}, {QD_KEY_F1 + 11, 24},
    };
    char text[24];
    for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++) {
        bool function = letters[i].final >= 'P';
        snprintf(text, sizeof text, "\033O%c", letters[i].final);
        define(text, key_code(letters[i].kind, 0));
        if (!function) { // "\e[P" is delete-character on some terminals
            snprintf(text, sizeof text, "\033[%c", letters[i].final);
            define(text, key_code(letters[i].kind, 0));
        }
        for (int m = 1; m < 8; m++) {
            snprintf(text, sizeof text, "\033[1;%d%c", m + 1, letters[i].final);
            define(text, key_code(letters[i].kind, m));
        }
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(text, sizeof text, "\033[%d~", numbers[i].number);
        define(text, key_code(numbers[i].kind, 0));
        for (int m = 1; m < 8; m++) {
            snprintf(text, sizeof text, "\033[%d;%d~", numbers[i].number, m + 1);
            define(text, key_code(numbers[i].kind, m));
        }
    }
    define("\033[Z", key_code(QD_KEY_TAB, 1));
    define("\033OM", key_code(QD_KEY_ENTER, 0));
    define("\033[<", QD_REPORT_MOUSE);
    define("\033[200~", QD_REPORT_PASTE_BEGIN);
    define("\033[201~", QD_REPORT_PASTE_END);
    define("\033[I", QD_REPORT_FOCUS_IN);
    define("\033[O", QD_REPORT_FOCUS_OUT);
    define("\033[?", QD_REPORT_PRIVATE);
}

/// ncurses' own codes, for keys that only terminfo knew (consoles, rxvt).
static uint32_t translate(uint32_t key) {
    switch (key) {
    case KEY_UP: return key_code(QD_KEY_UP, 0);
    case KEY_DOWN: return key_code(QD_KEY_DOWN, 0);
    case KEY_LEFT: return key_code(QD_KEY_LEFT, 0);
    case KEY_RIGHT: return key_code(QD_KEY_RIGHT, 0);
    case KEY_SR: return key_code(QD_KEY_UP, 1);
    case KEY_SF: return key_code(QD_KEY_DOWN, 1);
    case KEY_SLEFT: return key_code(QD_KEY_LEFT, 1);
    case KEY_SRIGHT: return key_code(QD_KEY_RIGHT, 1);
    case KEY_HOME: case KEY_A1: return key_code(QD_KEY_HOME, 0);
    case KEY_END: case KEY_C1: return key_code(QD_KEY_END, 0);
    case KEY_IC: return key_code(QD_KEY_INSERT, 0);
    case KEY_DC: return key_code(QD_KEY_DELETE, 0);
    case KEY_PPAGE: case KEY_A3: return key_code(QD_KEY_PAGE_UP, 0);
    case KEY_NPAGE: case KEY_C3: return key_code(QD_KEY_PAGE_DOWN, 0);
    case KEY_BTAB: return key_code(QD_KEY_TAB, 1);
    case KEY_BACKSPACE: return key_code(QD_KEY_BACKSPACE, 0);
    case KEY_ENTER: return key_code(QD_KEY_ENTER, 0);
    default: break;
    }
    if (key >= KEY_F(1) && key <= KEY_F(12)) return key_code(QD_KEY_F1 + (int)(key - KEY_F(1)), 0);
    return key;
}

int qd_next_input(uint32_t *value) {
    if (!screen || suspended) return QD_INPUT_NONE;
    wint_t c = 0;
    switch (wget_wch(key_pad, &c)) {
    case OK: *value = c; return QD_INPUT_CHARACTER;
    case KEY_CODE_YES: *value = translate(c); return QD_INPUT_KEY;
    default: return QD_INPUT_NONE;
    }
}

// MARK: Opening and closing

static SCREEN *open_builtin(void) {
    // ncurses takes a whole compiled entry from the environment; children must not inherit it.
    const char *had = getenv("TERMINFO");
    char *copy = had ? strdup(had) : NULL;
    setenv("TERMINFO", direct_terminfo, 1);
    SCREEN *s = newterm("quarterdeck-direct", stdout, stdin);
    if (copy) setenv("TERMINFO", copy, 1); else unsetenv("TERMINFO");
    free(copy);
    return s;
}

bool qd_open(bool direct, int escape_delay_ms, qd_screen_info *info) {
    if (tcgetattr(STDIN_FILENO, &saved_termios) == 0) have_saved_termios = 1;
    const char *name = NULL;
    if (direct && (screen = open_builtin())) {
        name = "quarterdeck-direct";
        direct_is_builtin = true;
    }
    const char *candidates[] = {getenv("TERM"), "xterm-256color", "xterm", "vt100"};
    for (int i = 0; i < 4 && !screen; i++) {
        if (!candidates[i] || !*candidates[i]) continue;
        if ((screen = newterm(candidates[i], stdout, stdin))) name = candidates[i];
    }
    if (!screen) return false;
    screen_is_active = 1;
    set_term(screen);
    set_escdelay(escape_delay_ms);
    raw(); // ^C ^Z ^S ^Q ^\ are keys
    noecho();
    nonl();
    intrflush(NULL, FALSE);
    scrollok(stdscr, FALSE);
    idlok(stdscr, FALSE);
    idcok(stdscr, FALSE);
    key_pad = newpad(1, 1);
    keypad(key_pad, TRUE);
    meta(key_pad, TRUE);
    nodelay(key_pad, TRUE);
    define_keys();
    int colors = 0, pairs = 0;
    if (has_colors() && start_color() == OK) {
        use_default_colors();
        colors = COLORS;
        pairs = COLOR_PAIRS;
    }
    direct_color = colors >= 1 << 24;
    curs_set(0);
    cursor_shown = false;
    leaveok(stdscr, TRUE);
    modes_on(wanted_modes);
    if (info) *info = (qd_screen_info){.terminal = name, .colors = colors, .pairs = pairs, .direct = direct_color};
    return true;
}

static void restore_termios(void) {
    if (have_saved_termios) tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_termios);
}

void qd_close(void) {
    if (!screen) return;
    if (!suspended) {
        WRITE_CONSTANT(STDOUT_FILENO, MODES_OFF);
        curs_set(1);
        endwin();
    }
    screen_is_active = 0;
    restore_termios();
    delwin(key_pad);
    delscreen(screen);
    screen = NULL;
    suspended = false;
}

void qd_suspend(void) {
    if (!screen || suspended) return;
    WRITE_CONSTANT(STDOUT_FILENO, MODES_OFF);
    def_prog_mode();
    curs_set(1);
    endwin();
    restore_termios();
    suspended = true;
    screen_is_active = 0;
}

void qd_resume(void) {
    if (!screen || !suspended) return;
    suspended = false;
    screen_is_active = 1;
    tcgetattr(STDIN_FILENO, &saved_termios); // the shell may have changed it
    reset_prog_mode();
    curs_set(0);
    cursor_shown = false;
    modes_on(wanted_modes);
    clearok(curscr, TRUE);
    wnoutrefresh(stdscr);
    doupdate();
}

bool qd_kernel_size(int *columns, int *rows) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return false;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}

void qd_resize(int columns, int rows) {
    if (!screen) return;
    resizeterm(rows, columns);
    werase(stdscr);
    clearok(curscr, TRUE);
}

// MARK: Drawing

/// The last pair asked for: runs of one style are long.
static int32_t last_foreground = -2, last_background = -2;
static int last_pair;

static int32_t usable(int32_t color) {
    if (color < 0) return -1;
    // Installed entries such as xterm-direct keep 0...7 for the palette: the nearest other colour is a shade of blue nobody sees.
    if (direct_color && !direct_is_builtin && color < 8) return 8;
    if (!direct_color && color >= COLORS) return -1;
    return color;
}

static int pair_for(int32_t foreground, int32_t background) {
    if (foreground == last_foreground && background == last_background) return last_pair;
    last_foreground = foreground;
    last_background = background;
    int32_t f = usable(foreground), b = usable(background);
    if (f < 0 && b < 0) return last_pair = 0;
    int pair = COLOR_PAIRS > 1 ? alloc_pair(f, b) : 0; // finds an existing one, or replaces the one unused longest
    return last_pair = pair > 0 ? pair : 0;
}

static attr_t attributes_of(uint16_t bits) {
    attr_t a = A_NORMAL;
    if (bits & QD_BOLD) a |= A_BOLD;
    if (bits & QD_DIM) a |= A_DIM;
    if (bits & QD_ITALIC) a |= A_ITALIC;
    if (bits & QD_UNDERLINE) a |= A_UNDERLINE;
    if (bits & QD_REVERSE) a |= A_REVERSE;
    if (bits & QD_BLINK) a |= A_BLINK;
    return a;
}

/// True where the C library (hence ncurses' idea of the cursor) gives the text the width that the caller counted on.
static bool width_agrees(const qd_cell *cell) {
    int width = 0;
    for (int i = 0; i < cell->length; i++) {
        int w = wcwidth((wchar_t)cell->text[i]);
        if (w < 0 || (i > 0 && w != 0)) return false;
        width += w;
    }
    return width == cell->width;
}

void qd_put(int column, int row, const qd_cell *cells, int count) {
    if (!screen || row < 0 || row >= LINES) return;
    for (int i = 0; i < count; i++) {
        const qd_cell *cell = &cells[i];
        int width = cell->width == 2 ? 2 : 1;
        if (column >= 0 && column + width <= COLS) {
            wchar_t text[6];
            int length = 0;
            bool fits = cell->length > 0 && width_agrees(cell);
            if (cell->length == 1 && cell->width == 1 && cell->text[0] >= 0x20 && cell->text[0] < 0x7f) fits = true;
            if (fits) {
                for (; length < cell->length && length < 5; length++) text[length] = (wchar_t)cell->text[length];
            } else {
                text[length++] = cell->length == 0 ? L' ' : wcwidth(0xFFFD) == 1 ? 0xFFFD : L'?';
            }
            text[length] = 0;
            int pair = pair_for(cell->foreground, cell->background);
            cchar_t complex;
            setcchar(&complex, text, attributes_of(cell->attributes), (short)(pair > 32767 ? 32767 : pair), &pair);
            // The answer is ERR for the last cell of the screen although it was written; other errors have no remedy here.
            (void)mvwadd_wch(stdscr, row, column, &complex);
            if (!fits && width == 2) {
                setcchar(&complex, L" ", attributes_of(cell->attributes), (short)(pair > 32767 ? 32767 : pair), &pair);
                (void)mvwadd_wch(stdscr, row, column + 1, &complex);
            }
        }
        column += width;
    }
}

void qd_set_cursor(int column, int row) {
    cursor_column = column;
    cursor_row = row;
}

void qd_flush(bool synchronized) {
    if (!screen || suspended) return;
    bool show = cursor_column >= 0;
    if (synchronized) WRITE_CONSTANT(STDOUT_FILENO, "\033[?2026h");
    if (show != cursor_shown) {
        leaveok(stdscr, show ? FALSE : TRUE);
        if (!show) curs_set(0);
    }
    if (show) wmove(stdscr, cursor_row, cursor_column);
    wnoutrefresh(stdscr);
    doupdate();
    if (show && !cursor_shown) {
        curs_set(1);
        doupdate();
    }
    cursor_shown = show;
    // doupdate has sent its buffer, so that this lands behind the frame.
    if (synchronized) WRITE_CONSTANT(STDOUT_FILENO, "\033[?2026l");
}

void qd_repaint(void) {
    if (screen) clearok(curscr, TRUE);
}

void qd_reenter(void) {
    if (!screen || suspended) return;
    reset_prog_mode();
    modes_on(wanted_modes);
    clearok(curscr, TRUE);
}

// MARK: Signals

static int signal_pipe[2] = {-1, -1};
static sigset_t wait_mask;
static const int caught_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH, SIGQUIT};
#define CAUGHT_COUNT (sizeof caught_signals / sizeof caught_signals[0])

static void on_signal(int number) {
    int saved = errno;
    char byte = (char)number;
    (void)!write(signal_pipe[1], &byte, 1); // a full pipe already says enough
    errno = saved;
}

int qd_install_signals(void) {
    if (signal_pipe[0] < 0) {
        if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
    }
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigset_t block;
    sigemptyset(&block);
    for (size_t i = 0; i < CAUGHT_COUNT; i++) {
        sigaddset(&block, caught_signals[i]);
        struct sigaction old;
        // nohup and background jobs ignore some on purpose.
        if (sigaction(caught_signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN) continue;
        sigaction(caught_signals[i], &action, NULL);
    }
    pthread_sigmask(SIG_BLOCK, &block, &wait_mask);
    for (size_t i = 0; i < CAUGHT_COUNT; i++) sigdelset(&wait_mask, caught_signals[i]);
    signal(SIGPIPE, SIG_IGN);
    return signal_pipe[0];
}

uint32_t qd_wait(const int *descriptors, int count, int64_t timeout_ns) {
    struct pollfd polled[QD_HUNG_UP_SHIFT];
    if (count > QD_HUNG_UP_SHIFT) count = QD_HUNG_UP_SHIFT;
    for (int i = 0; i < count; i++) polled[i] = (struct pollfd){.fd = descriptors[i], .events = POLLIN};
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int ready = ppoll(polled, (nfds_t)count, timeout_ns < 0 ? NULL : &limit, &wait_mask);
    uint32_t bits = 0;
    if (ready != 0) {
        // Where something is readable at once, ppoll leaves pending signals pending: a terminal that is always readable (its other end
        // is gone, or a paste pours in) would keep them out for ever. This lets them in.
        sigset_t blocked;
        pthread_sigmask(SIG_SETMASK, &wait_mask, &blocked);
        pthread_sigmask(SIG_SETMASK, &blocked, NULL);
        // And what an interrupted wait left undone; the signal pipe is readable by now.
        ready = poll(polled, (nfds_t)count, 0);
    }
    for (int i = 0; i < count && ready > 0; i++) {
        if (polled[i].revents & POLLIN) bits |= 1u << i;
        if (polled[i].revents & (POLLHUP | POLLERR | POLLNVAL)) bits |= 1u << (i + QD_HUNG_UP_SHIFT);
    }
    return bits;
}

void qd_stop_job(void) {
    struct sigaction ours, standard = {.sa_handler = SIG_DFL};
    sigset_t only, before;
    sigemptyset(&only);
    sigaddset(&only, SIGTSTP);
    sigaction(SIGTSTP, &standard, &ours);
    if (ours.sa_handler == SIG_IGN) { // started without job control
        sigaction(SIGTSTP, &ours, NULL);
        return;
    }
    kill(0, SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &only, &before); // it arrives here
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGTSTP, &ours, NULL);
}

// MARK: Crashes

static const int fatal_signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGBUS, SIGFPE};

static void copy_captured(int limit) {
    int from = captured_fd, to = original_stderr;
    if (from < 0 || to < 0) return;
    off_t size = lseek(from, 0, SEEK_END);
    off_t at = size > limit ? size - limit : 0;
    char buffer[1024];
    while (at < size) {
        ssize_t n = pread(from, buffer, sizeof buffer, at);
        if (n <= 0) break;
        write_all(to, buffer, (size_t)n);
        at += n;
    }
}

/// Only calls that are allowed in a signal handler.
static void emergency_restore(void) {
    if (screen_is_active) {
        screen_is_active = 0;
        WRITE_CONSTANT(STDOUT_FILENO, restore_text);
        if (have_saved_termios) tcsetattr(STDIN_FILENO, TCSANOW, &saved_termios);
    }
    copy_captured(16384);
    captured_fd = -1;
}

static void on_fatal_signal(int number) {
    emergency_restore();
    signal(number, SIG_DFL);
    // The instruction that failed fails again, or abort() raises again; raise covers signals sent from outside.
    raise(number);
}

static void at_exit(void) { emergency_restore(); }

void qd_install_crash_handler(void) {
    static bool installed;
    if (installed) return;
    installed = true;
    // SEGV includes a full stack: the handler brings its own. 64 KB is far above what it uses.
    static char stack_memory[65536];
    stack_t stack = {.ss_sp = stack_memory, .ss_size = sizeof stack_memory};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof fatal_signals / sizeof fatal_signals[0]; i++) sigaction(fatal_signals[i], &action, NULL);
    atexit(at_exit);
}

// MARK: Standard error

/// Where the file is cut: a library that complains for ever must not fill the memory.
#define CAPTURE_LIMIT (1 << 20)

bool qd_capture_stderr(void) {
    if (captured_fd >= 0) return true;
    int file = memfd_create("stderr", MFD_CLOEXEC);
    if (file < 0) return false;
    fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_APPEND);
    int original = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (original < 0) {
        close(file);
        return false;
    }
    dup2(file, STDERR_FILENO);
    captured_fd = file;
    original_stderr = original;
    return true;
}

size_t qd_captured_stderr(char *buffer, size_t capacity) {
    if (captured_fd < 0) return 0;
    off_t size = lseek(captured_fd, 0, SEEK_END);
    off_t at = size > (off_t)capacity ? size - (off_t)capacity : 0;
    ssize_t n = pread(captured_fd, buffer, capacity, at);
    if (size > CAPTURE_LIMIT) (void)!ftruncate(captured_fd, 0);
    return n > 0 ? (size_t)n : 0;
}

void qd_release_stderr(void) {
    if (captured_fd < 0) return;
    fflush(stderr);
    copy_captured(65536);
    dup2(original_stderr, STDERR_FILENO);
    close(captured_fd);
    close(original_stderr);
    captured_fd = original_stderr = -1;
}

// MARK: Processes

pid_t qd_spawn(char *const arguments[]) {
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    for (size_t i = 0; i < CAUGHT_COUNT; i++) sigaddset(&standard, caught_signals[i]);
    sigaddset(&standard, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (original_stderr >= 0) posix_spawn_file_actions_adddup2(&actions, original_stderr, STDERR_FILENO);
    qd_keep_files(&actions);
    pid_t pid = 0;
    int error = posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error ? -error : pid;
}

bool qd_has_ended(pid_t pid, int *status) { return waitpid(pid, status, WNOHANG) == pid; }
