package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/internal/node"
)

// exitNodesAway is the exit code of 'serve --check' when the settings are valid and nodes do
// not answer the request for their services.
const exitNodesAway = 3

type serveCommand struct {
	Role       contextkit.Kind `arg:"" enum:"gateway,aggregate,projection,runner,control" help:"Role to run: gateway, aggregate, projection, runner or control."`
	Config     string          `required:"" type:"existingfile" help:"File of settings; 'headgate config' prints every setting with an explanation."`
	NewJournal bool            `help:"Start with an empty journal although other streams, buckets or views were made from a lost one, and accept the loss of its events. Give it to one role, once."`
	Check      bool            `help:"Check the settings and the files that they name, query the gateway's nodes with 'reflect' for their services, and exit. Exit code 1: invalid settings; 3: valid settings, but nodes do not answer."`
}

// Run runs one role until the process is interrupted, or checks its settings.
func (c *serveCommand) Run(ctx context.Context) error {
	plan, err := node.Open(ctx, c.Role, c.Config, node.Options{NewJournal: c.NewJournal, Logs: os.Stderr})
	if err != nil {
		return err
	}
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
