// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// cgroup is the name of the control group of all pods. Clusters in two folders have two.
func (c *cluster) cgroup() string {
	return fmt.Sprintf("wechat-token-operator-%.8x", sha256.Sum256([]byte(c.dir)))
}

// cgroups are the cluster's control groups: one in each hierarchy of the old kind, or one altogether.
func (c *cluster) cgroups() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(root, c.cgroup())}, nil
	}
	hierarchies, err := filepath.Glob(root + "/*/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, h := range hierarchies {
		found = append(found, filepath.Join(filepath.Dir(h), c.cgroup()))
	}
	if len(found) == 0 {
		return nil, errors.New("there are no control groups in " + root)
	}
	return found, nil
}

// makeCgroups makes them; the kubelet wants them to exist.
func (c *cluster) makeCgroups() error {
	groups, err := c.cgroups()
	if err != nil {
		return err
	}
	for _, group := range groups {
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// removeCgroups removes them from the leaves up; a control group has no files to delete.
func (c *cluster) removeCgroups() error {
	groups, err := c.cgroups()
	if err != nil {
		return err
	}
	var errs []error
	for _, group := range groups {
		var found []string
		_ = filepath.WalkDir(group, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return nil // what is gone needs no removal
		})
		for _, path := range slices.Backward(found) {
			if err := syscall.Rmdir(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("removing %s: %w", path, err))
			}
		}
	}
	return errors.Join(errs...)
}
