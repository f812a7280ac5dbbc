// Package traffic makes network namespaces with bridges in them and sends packets through, at the rate of one processor and
// timed by the kernel: an XDP program's test run injects frames as if a port of the bridge had received them, and the port
// they leave by is a sink that counts. A packet costs no system call, so that what is measured is the bridge and its filter.
package traffic
