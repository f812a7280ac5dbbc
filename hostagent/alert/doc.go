// Package alert tells people what is wrong on a blade: it compares what is wrong now with what each webhook was told and posts the
// difference, bundled. It decides nothing about what is wrong and keeps nothing on disk: after a restart what is wrong is told again.
package alert
