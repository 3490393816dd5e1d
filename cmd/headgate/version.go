package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/headgate/headgate/internal/version"
)

// versionCommand prints which release this is.
type versionCommand struct {
	JSON bool `name:"json" help:"Print it as a JSON object."`
}

// Run prints the version.
func (c *versionCommand) Run() error {
	info := version.Get()
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(info)
	}
	_, err := fmt.Println(info)
	return err
}
