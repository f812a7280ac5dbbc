// Package lab owns a blade in a throw-away virtual machine: a Debian root file system built once from packages, a kernel
// with every module, /dev/kvm, libvirt and LXC, and beside the blade a backbone router and a user. It starts it, runs commands in
// it and removes it without a trace. It never changes the machine it runs on: everything it makes lies in one cache folder
// and one folder per running lab.
package lab
