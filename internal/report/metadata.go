// SPDX-License-Identifier: Apache-2.0

package report

import "github.com/wechat-token-operator/wechat-token-operator/internal/token"

// Metadata is what became of the writes of a target's labels, annotations and owner reference alone.
type Metadata struct {
	// Failed is what the last one ended with; nil when it worked.
	Failed *Failure
	// RefusedReferences is the generation whose change of the owner reference the API server refused.
	RefusedReferences int64
}

// WithFailure returns m after a write that ended with this failure; nil if it worked.
func (m Metadata) WithFailure(f *Failure) Metadata {
	m.Failed = f
	return m
}

// WithRefusedReferences returns m after the API server refused to change the owner reference for a generation.
func (m Metadata) WithRefusedReferences(generation int64) Metadata {
	m.RefusedReferences = generation
	return m
}

// NoteMetadata completes the observation by what became of the writes of metadata.
func (o *Observation) NoteMetadata(m Metadata) {
	o.Metadata = m
	if m.Failed != nil {
		inputs := m.Failed.Failure
		inputs.Binds = m.Failed.Generation == o.Resource.Generation
		o.MetadataFailure = &inputs
	}
}

// FailureToTell returns the failure that the status tells; nil for none. One of metadata costs no token, so it comes last.
func (o *Observation) FailureToTell() *Failure {
	if o.Failed != nil {
		return o.Failed
	}
	return o.Metadata.Failed
}

// NoteTold completes the observation by the failure that the status speaks of. class is its class; empty if another process wrote it.
func (o *Observation) NoteTold(class token.Class) {
	told, f := o.Resource.Status.LastError, o.FailureToTell()
	if told == nil {
		return
	}
	if o.Told.Class = class; class == "" {
		o.Told.Class = ClassOf(told)
	}
	o.Told.SameCause = f != nil && told.Generation == f.Generation && told.CredentialsVersion == f.CredentialsVersion
}
