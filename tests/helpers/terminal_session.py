"""Run a program in a terminal of its own, and note when it writes what."""

import os

import psutil

COLUMNS = "100"


def run_in_terminal(command, folder):
    """Return the exit status of a program, and its writes: seconds that it has computed, and text.

    These are seconds of a core, so that a busy machine does not count as silence.
    """
    import pty  # only where there are terminals

    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, os.environ | {"COLUMNS": COLUMNS, "TERM": "xterm"})
    program, writes = psutil.Process(process), []
    while True:
        try:
            data = os.read(terminal, 2**16)
        except OSError:  # how Linux says that the program has ended
            break
        if not data:
            break
        used = program.cpu_times()
        writes.append((used.user + used.system, data.decode(errors="replace")))
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), writes


def screen_of(text):
    """Return the lines that are left in a terminal, without trailing blanks."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines
