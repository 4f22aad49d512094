"""The guest's configuration files: what maintainer scripts would have written, and our own choices."""

from __future__ import annotations

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""

# "*" is no password that matches; "!" would be a locked account, which sshd without PAM refuses even by key.
SHADOW = """\
root:*:20000:0:99999:7:::
sshd:!:20000::::::
nobody:*:20000:0:99999:7:::
"""

GROUP = """\
root:x:0:
tty:x:5:
kmem:x:15:
nogroup:x:65534:
"""

NSSWITCH = """\
passwd: files
group: files
shadow: files
hosts: files dns
services: files
protocols: files
"""

# A handshake under TCG costs 1 to 2 s; curve25519 is the cheapest exchange. The penalties of OpenSSH 9.8 are for
# strangers: a controller that asks again and again whether the guest is up must not be shut out. No LoginGraceTime: on
# a clock of instructions minutes pass while an idle guest waits for the host's answer.
SSHD = """\
Port 22
AddressFamily inet
ListenAddress 0.0.0.0
HostKey /etc/ssh/ssh_host_ed25519_key
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
PermitRootLogin prohibit-password
AuthenticationMethods publickey
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
PermitUserRC no
X11Forwarding no
Compression no
IPQoS none
LoginGraceTime 0
MaxStartups 100
MaxSessions 100
PerSourcePenalties no
PidFile none
SetEnv LANG=C.UTF-8
Subsystem sftp internal-sftp
"""

PROFILE = """\
# sh(1) at login. Commands have dash for their shell, which is there in a third of the time; a person gets bash.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export PATH
if [ "${BASH-}" ]; then
	[ ! -f /etc/bash.bashrc ] || . /etc/bash.bashrc
else
	case $- in *i*) SHELL=/bin/bash exec /bin/bash -l ;; esac
fi
"""

POWEROFF = """\
#!/bin/sh
# Nothing has to be saved: what a run writes is in memory, and on disks that belong to the run.
echo o >/proc/sysrq-trigger
"""

FILES: dict[str, str] = {
    "etc/passwd": PASSWD,
    "etc/shadow": SHADOW,
    "etc/group": GROUP,
    "etc/nsswitch.conf": NSSWITCH,
    "etc/hostname": "mof\n",
    "etc/hosts": "127.0.0.1 localhost mof\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",  # QEMU's user network
    "etc/fstab": "# Filled by /usr/lib/mof/init.\n",
    "etc/profile": PROFILE,
    "etc/ssh/sshd_config": SSHD,
    "usr/lib/mof/poweroff": POWEROFF,
}
"""Path in the guest, without the leading slash, to content. Mode 0644; see MODES."""

MODES: dict[str, int] = {"etc/shadow": 0o640, "usr/lib/mof/poweroff": 0o755}

LINKS: dict[str, str] = {
    "usr/bin/awk": "mawk",
    "usr/bin/pager": "less",
    "usr/bin/which": "which.debianutils",
    "usr/sbin/poweroff": "../lib/mof/poweroff",
    "usr/sbin/halt": "../lib/mof/poweroff",
    "etc/mtab": "../proc/self/mounts",
    "var/run": "/run",
    "var/lock": "/run/lock",
    # init copies this folder into /dev at one stroke; devtmpfs has none of the links.
    "usr/lib/mof/dev/fd": "/proc/self/fd",
    "usr/lib/mof/dev/stdin": "/proc/self/fd/0",
    "usr/lib/mof/dev/stdout": "/proc/self/fd/1",
    "usr/lib/mof/dev/stderr": "/proc/self/fd/2",
}
"""Path in the guest to what the symbolic link says; whatever stands there is replaced."""

FOLDERS = ("usr/lib/mof/dev/virtio-ports", "usr/lib/modules", "var/log", "var/tmp", "mnt", "opt", "srv", "tmp", "run")

PRUNED = (
    "boot",
    "etc/apt",
    "etc/dpkg",
    "etc/init.d",
    "etc/rc?.d",
    "etc/runit",
    "etc/sv",
    "etc/systemd",
    "etc/update-motd.d",
    "usr/bin/perl*",
    "usr/bin/systemd*",
    "usr/games",
    "usr/lib/init",
    "usr/lib/systemd",
    "usr/lib/sysusers.d",
    "usr/lib/tmpfiles.d",
    "usr/lib/udev",
    "usr/lib/*-linux-gnu/gconv",
    "usr/lib/*-linux-gnu/perl*",
    "usr/lib/*-linux-gnu/systemd",
    "usr/lib/*-linux-gnu/security",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/dict",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl*",
    "usr/share/pixmaps",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/*",
)
"""Globs of what a guest that installs nothing does not need. No package manager stays: an image is remade instead."""
