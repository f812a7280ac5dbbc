// Package service is what the image of a virtual machine that is a real server says of the program it is for, and what is known of that
// program while the machine runs. It starts nothing.
package service
