// Package volume owns the folders of a blade in which guests keep what outlives their clones: it makes, lists and removes them. It mounts
// nothing, and removes one only when it is told to.
package volume
