// Package guest is the inside of a lab's virtual machine: its first process, which mounts what a machine has and loads modules,
// and the agent that runs commands for the host. It never configures the blade: that is the policy's and the host's work.
package guest
