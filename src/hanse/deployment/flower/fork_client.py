"""The small program by which Flower's programs ask the fork server to start another one.

Flower's programs start each other by name. In their folder of programs (see `home`) each name is
this small program, which sends its arguments and its output streams to the fork server. If it
stands for a command, it waits for the command's end and returns its exit code.
"""

FORK_SERVER = "HANSE_FORK_SERVER"  # environment variable: path of its socket
COMMAND = "flwr"  # the program that ends by itself and whose output is read

# It imports as little of Python as possible, since it runs for every message of every silo.
ASK = """import json, os, socket, sys
try:
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["HANSE_FORK_SERVER"])
except (OSError, KeyError):
    os.execv(sys.executable, [sys.executable, "-m", "{program}", *sys.argv[1:]])
socket.send_fds(line, [b"w"], [0, 1, 2])
line.sendall(json.dumps(sys.argv[1:]).encode())
line.shutdown(socket.SHUT_WR)
end = line.recv(1)
sys.exit(end[0] if end else sys.argv[1] == "{command}")
"""
