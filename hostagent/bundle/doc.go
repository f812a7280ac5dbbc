// Package bundle packs what somebody far away needs to understand a blade into one archive, without what is secret. It reads nothing itself.
package bundle
