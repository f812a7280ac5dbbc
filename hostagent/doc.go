// Package hostagent owns the loop of bladed: it takes checked policy, lets each subsystem observe, plan and apply in one
// written order, and says what is not as it should be. It remembers nothing about the kernel, and its end changes nothing there.
package hostagent
