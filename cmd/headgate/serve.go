package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/internal/node"
)

// exitNodesAway is the exit code of 'serve --check' when the settings are valid and nodes do
// not answer the request for their services.
const exitNodesAway = 3

type serveCommand struct {
	Role       string `arg:"" enum:"gateway,aggregate,projection,runner,control" help:"What to run: gateway, aggregate, projection, runner or control."`
	Config     string `required:"" type:"existingfile" help:"File of settings; 'headgate config' prints one with every setting explained."`
	NewJournal bool   `help:"Start with an empty journal where other streams, buckets or views were made from one that is gone, and accept the loss of its events. One role needs it, once."`
	Check      bool   `help:"Check the settings and what they name, ask the gateway's nodes with 'reflect' for their services, and end. Exit code 1: the settings cannot be used; 3: they can, and nodes do not answer."`
}

// Run runs one role until the process is interrupted, or checks its settings.
func (c *serveCommand) Run(ctx context.Context) error {
	plan, err := node.Open(ctx, c.Role, c.Config, os.Stderr)
	if err != nil {
		return err
	}
	plan.NewJournal = c.NewJournal
	if !c.Check {
		return plan.Run(ctx, os.Stdout)
	}
	fmt.Printf("%s: the settings of the %s can be used\n", c.Config, c.Role)
	err = plan.CheckNodes(ctx)
	if away := (fleet.NodesAwayError{}); errors.As(err, &away) {
		return exitError{err, exitNodesAway}
	}
	return err
}

// exitError is an error with the exit code of the process.
type exitError struct {
	error

	code int
}

// ExitCode implements [kong.ExitCoder].
func (e exitError) ExitCode() int { return e.code }

type configCommand struct{}

// Run prints the documented settings.
func (configCommand) Run() error {
	_, err := os.Stdout.Write(node.DocumentedSettings())
	return err
}
