// Package layout holds the rule of imports between the folders of this module, as a test.
package layout
