// A small door to ncursesw. Swift sees only these functions; ncurses' macros, globals and types stay behind it.
// Everything here belongs to ONE thread (the one that called qd_open), except where a comment says otherwise.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// MARK: Locale

/// Takes the locale from the environment. True where characters are UTF-8 afterwards (it tries C.UTF-8 for LC_CTYPE by itself when
/// the environment names another codeset); false means: draw ascii only. Call before qd_open.
bool qd_set_locale(void);

// MARK: Opening and closing

typedef struct qd_screen_info {
    const char *terminal; ///< the terminfo entry in use
    int colors;           ///< 0, 8, 16, 88, 256 or 1 << 24
    int pairs;
    bool direct;          ///< colours are 0xRRGGBB instead of palette indexes
} qd_screen_info;

/// Opens the screen on standard input and output: TERM first, then xterm-256color, xterm, vt100. With `direct` it takes a built-in
/// entry for terminals that understand direct colour (no such entry needs to be installed). Saves the terminal's modes before.
/// Returns false when no description fits (the terminal is untouched then).
bool qd_open(bool direct, int escape_delay_ms, qd_screen_info *info);

/// Modes of the terminal beyond ncurses' own.
enum {
    QD_MODE_MOUSE = 1,        ///< clicks, drags and wheel as SGR reports (1000, 1002, 1006)
    QD_MODE_PASTE = 2,        ///< bracketed paste (2004)
    QD_MODE_FOCUS = 4,        ///< focus reports (1004)
};
/// Switches on exactly the modes of the set `modes`; the others go off. Remembered over suspend and resume.
void qd_set_modes(int modes);

/// Leaves the screen for good: modes off, cursor on, saved terminal modes back. Harmless when not open.
void qd_close(void);
/// Leaves the screen for a while (another program takes the terminal); qd_resume returns and repaints all.
void qd_suspend(void);
void qd_resume(void);

/// The size that the kernel knows, in cells. False when standard output is no terminal.
bool qd_kernel_size(int *columns, int *rows);
/// Tells ncurses about a new size. The next flush repaints everything.
void qd_resize(int columns, int rows);

// MARK: Drawing

enum {
    QD_BOLD = 1, QD_DIM = 2, QD_ITALIC = 4, QD_UNDERLINE = 8, QD_REVERSE = 16, QD_BLINK = 32,
};

/// One cell as it goes to the terminal. `width` 2: the next cell of the row is covered and must not be written.
typedef struct qd_cell {
    uint32_t text[5];     ///< unicode scalars; the first `length` count
    uint8_t length;
    uint8_t width;        ///< 1 or 2, as the caller believes; where the C library disagrees a replacement is drawn
    uint16_t attributes;  ///< QD_BOLD ...
    int32_t foreground;   ///< -1 default, else palette index or 0xRRGGBB (`direct`)
    int32_t background;
} qd_cell;

/// Puts `count` cells at (column, row), left to right, each advancing by its width. Cells outside are dropped.
void qd_put(int column, int row, const qd_cell *cells, int count);
/// Where the cursor stands after the next flush; column < 0 hides it.
void qd_set_cursor(int column, int row);
/// Sends the differences to the terminal. `synchronized` brackets them with mode 2026.
void qd_flush(bool synchronized);
/// The next flush sends every cell.
void qd_repaint(void);
/// Takes the terminal again after something else may have changed its modes (the process was stopped and continued from outside).
void qd_reenter(void);
/// Writes raw bytes to the terminal, in order with the frames (OSC 52, queries). Blocks while the terminal is slow.
void qd_write(const char *bytes, size_t count);

// MARK: Keys

enum { QD_INPUT_NONE = 0, QD_INPUT_CHARACTER = 1, QD_INPUT_KEY = 2 };
/// Special keys. A key is QD_KEY_BASE + kind * 8 + modifiers (1 shift, 2 alt, 4 control).
enum {
    QD_KEY_BASE = 0x1000,
    QD_KEY_UP = 0, QD_KEY_DOWN, QD_KEY_RIGHT, QD_KEY_LEFT, QD_KEY_HOME, QD_KEY_END, QD_KEY_INSERT, QD_KEY_DELETE,
    QD_KEY_PAGE_UP, QD_KEY_PAGE_DOWN, QD_KEY_TAB, QD_KEY_BACKSPACE, QD_KEY_ENTER,
    QD_KEY_F1, QD_KEY_F12 = QD_KEY_F1 + 11,
    QD_KEY_KINDS,
};
/// Beginnings of reports; the rest follows as characters.
enum {
    QD_REPORT_MOUSE = 0x2000,  ///< then "b;x;yM" or "b;x;ym"
    QD_REPORT_PASTE_BEGIN, QD_REPORT_PASTE_END, QD_REPORT_FOCUS_IN, QD_REPORT_FOCUS_OUT,
    QD_REPORT_PRIVATE,         ///< "\e[?" of an answer; then "mode;value$y" and the like
};
/// The next key that has arrived, without waiting (except `escape_delay_ms` after a lone Escape).
int qd_next_input(uint32_t *value);

// MARK: Signals and crashes

/// Makes signals write their number as one byte into a pipe; blocks them in this thread and in all threads that it starts from now
/// on, so that they arrive only in qd_wait. Returns the pipe's reading end. Call first of all, in the main thread.
int qd_install_signals(void);
/// Waits until one of the descriptors is readable, a signal arrived or `timeout_ns` passed (< 0: for ever). Signals arrive only here.
/// Bit i of the answer is set where descriptors[i] is readable, bit i + QD_HUNG_UP_SHIFT where its other end is gone.
enum { QD_HUNG_UP_SHIFT = 16 };
uint32_t qd_wait(const int *descriptors, int count, int64_t timeout_ns);
/// Stops the whole job as ^Z does by default; returns when it continues. (A job nobody could continue is not stopped.)
void qd_stop_job(void);
/// Restores the terminal where a fatal signal (ILL TRAP SEGV ABRT BUS FPE) arrives or the process exits, then lets the signal do its work.
void qd_install_crash_handler(void);

// MARK: Standard error

/// From now on standard error goes to a file in memory. False where there is none.
bool qd_capture_stderr(void);
/// Copies up to `capacity` of the newest captured bytes; returns how many.
size_t qd_captured_stderr(char *buffer, size_t capacity);
/// Standard error is what it was; what was captured (its end, if long) is printed there.
void qd_release_stderr(void);

// MARK: Processes

/// Starts a program with all signals as they were by default, in the foreground of this terminal. Returns its pid or -errno.
pid_t qd_spawn(char *const arguments[]);
/// True once `pid` has ended; its status (as waitpid gives it) in `status`.
bool qd_has_ended(pid_t pid, int *status);
