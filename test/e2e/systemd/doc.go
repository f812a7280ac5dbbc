// Package systemd tries the Debian packages on a blade whose first process is systemd. The tests run outside of the machine, which restarts.
package systemd
