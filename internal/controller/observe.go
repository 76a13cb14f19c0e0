// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// longestLife is the longest life that a token found in a Secret may claim: WeChat's longest, and slack for clocks.
const longestLife = 4*time.Hour + 5*time.Minute

// stored is the token that the target holds, without its value.
type stored struct {
	fingerprint         string
	mode                v1alpha1.Mode
	appID               string
	issuedAt, expiresAt time.Time
	credentials         string // fingerprint
	// unseen: nobody of this operator saw WeChat issue it, so it is not handed to others.
	unseen bool
}

// loadTarget finds the target Secret's metadata: from the informer, or from the last own write if that is newer.
func (p *pass) loadTarget(ctx context.Context) error {
	var existing *metav1.PartialObjectMetadata
	now, unsettled := p.WeChat.Now(), true
	for range catchUpLooks {
		cached, err := p.targetIn(ctx, p.Client)
		if err != nil {
			return err
		}
		if existing, unsettled = p.mem.freshestTarget(cached, now); !unsettled {
			break
		}
	}
	if unsettled {
		var err error
		if existing, err = p.liveTarget(ctx); err != nil {
			return err
		}
		p.mem.rememberTarget(existing, now)
	}
	if existing == nil && p.mem.hadTarget {
		p.mem.repairs.note(now) // somebody deleted it
	}
	p.mem.hadTarget = existing != nil
	p.setExisting(existing)
	return nil
}

// catchUpLooks at a cache: what it did not have at the first look may have come before its event dropped the own copy.
const catchUpLooks = 2

// targetIn reads the target's metadata from a cache or the API server; nil when there is none. Do not change it.
func (p *pass) targetIn(ctx context.Context, from client.Reader) (*metav1.PartialObjectMetadata, error) {
	meta, err := secretMetadata(ctx, from, p.targetName())
	if err != nil {
		return nil, fmt.Errorf("reading metadata of target Secret %s: %w", p.targetName(), err)
	}
	return meta, nil
}

// secretMetadata reads a Secret's metadata from a cache or the API server; nil when there is none. Do not change it: it may be the
// cache's own.
func secretMetadata(ctx context.Context, from client.Reader, key types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := from.Get(ctx, key, meta, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return meta, nil
}

func (p *pass) setExisting(existing *metav1.PartialObjectMetadata) {
	p.existing, p.record = existing, target.Record{}
	if existing != nil {
		p.record = target.DecodeRecord(existing.Annotations)
	}
}

// liveTarget reads the target's metadata from the API server; nil when there is none.
func (p *pass) liveTarget(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
	meta, err := p.targetIn(ctx, p.Live)
	if err != nil || meta == nil {
		return nil, err
	}
	return target.StripMetadata(meta), nil
}

func (p *pass) targetName() types.NamespacedName {
	return types.NamespacedName{Namespace: p.token.Namespace, Name: p.token.TargetName()}
}

// settleOwnership decides what this resource may do with the Secret.
func (p *pass) settleOwnership(ctx context.Context) error {
	others := &neighbours{ctx: ctx, cache: p.Client, live: p.Live, token: p.token}
	p.ownership = target.Settle(p.token, p.existing, others)
	if others.err != nil {
		return others.err
	}
	if v := p.mem.verified; p.existing != nil && v.refused != "" && v.resourceVersion == p.existing.ResourceVersion {
		p.ownership = target.Ownership{Claim: target.Conflict, Message: v.refused}
	}
	return nil
}

// loadStored finds out which token the Secret holds. A resourceVersion that is not the last own write's costs one live
// read; after it the data is known to be right, tampered with, or doubtful.
func (p *pass) loadStored(ctx context.Context) error {
	p.stored = stored{}
	if p.existing == nil || !p.ownership.Writable() || p.ownership.Claim == target.Adopt {
		return nil
	}
	if !p.verifiedAlready() {
		if err := p.verify(ctx); err != nil || p.existing == nil || !p.ownership.Writable() {
			return err
		}
	}
	switch known, trusted := p.trusted(); {
	case p.mem.verified.doubtful:
		p.stored = recorded(p.record)
	case trusted:
		p.stored = known
	}
	if now, synced := p.WeChat.Clock(); synced && !p.mem.verified.tampered && !p.stored.believable(now) {
		v := &p.mem.verified // WeChat's time was not known when it was judged
		v.doubtful, v.tampered, v.counted = false, true, false
	}
	p.countRepair()
	return nil
}

// countRepair counts, once for each state of the Secret, that somebody else's write is to be undone.
func (p *pass) countRepair() {
	v := &p.mem.verified
	if !v.counted && (v.tampered || p.putBack() || p.outdated()) {
		p.mem.repairs.note(p.WeChat.Now())
	}
	v.counted = true
}

// putBack: somebody wrote another token than this process did, with what goes with it, such as an older copy of the Secret. It may be the
// right one, so WeChat is asked.
func (p *pass) putBack() bool {
	return p.mem.verified.doubtful && p.mem.stored != nil && p.mem.stored.fingerprint != p.record.TokenFingerprint
}

// trusted is the token that this operator wrote last: in this process, or by its status, which only the operator
// may write.
func (p *pass) trusted() (stored, bool) {
	if p.mem.stored != nil {
		return *p.mem.stored, true
	}
	t := p.token.Status.Token
	if t == nil || p.ownership.Claim == target.TakeOver {
		return stored{}, false
	}
	s := recorded(p.record)
	s.mode, s.issuedAt, s.expiresAt = t.Mode, t.IssueTime.Time, t.ExpirationTime.Time
	if t.Fingerprint != "" {
		s.fingerprint, s.unseen = t.Fingerprint, false
	}
	return s, true
}

func recorded(r target.Record) stored {
	return stored{
		fingerprint: r.TokenFingerprint, mode: r.Mode, appID: r.AppID,
		issuedAt: r.IssuedAt, expiresAt: r.ExpiresAt,
		credentials: r.CredentialsFingerprint, unseen: true,
	}
}

// verifiedAlready: the data is what it was when this operator last wrote or read it.
func (p *pass) verifiedAlready() bool {
	version := p.existing.ResourceVersion
	if p.mem.verified.resourceVersion != "" {
		return p.mem.verified.resourceVersion == version
	}
	if p.token.Status.TargetResourceVersion != version || p.ownership.Claim != target.Own {
		return false
	}
	p.mem.verified = verification{resourceVersion: version}
	return true
}

// verify reads the Secret and compares its data with the token that ought to be there.
func (p *pass) verify(ctx context.Context) error {
	snapshot, err := p.store.Read(ctx, p.targetName())
	if apierrors.IsNotFound(err) {
		p.mem.rememberTarget(nil, time.Time{})
		p.setExisting(nil)
		return p.settleOwnership(ctx)
	}
	if err != nil {
		return err
	}
	p.judge(snapshot)
	return p.settleOwnership(ctx)
}

// judge takes the snapshot for the target and notes what its data shows.
func (p *pass) judge(snapshot target.Snapshot) {
	now, synced := p.WeChat.Clock()
	p.mem.rememberTarget(snapshot.Meta, now)
	p.setExisting(snapshot.Meta)
	p.mem.looked()
	v := verification{resourceVersion: snapshot.Meta.ResourceVersion, refused: p.refusal(snapshot)}
	key := p.token.Spec.Target.AccessTokenKey
	known, trusted := p.trusted()
	switch r := p.record; {
	case trusted && snapshot.Holds(key, known.fingerprint, known.appIDOr(r.AppID), known.expiresAt):
	case snapshot.Holds(key, r.TokenFingerprint, r.AppID, r.ExpiresAt) && r.Complete() && (!synced || plausible(r.ExpiresAt, now)):
		v.doubtful = true
	default:
		v.tampered = true
	}
	p.mem.verified = v
}

// plausible: WeChat may have given a token this expiry. Who edits a Secret may write any.
func plausible(expiresAt, now time.Time) bool { return expiresAt.Before(now.Add(longestLife)) }

// believable: the times are the operator's own, or plausible.
func (s stored) believable(now time.Time) bool { return !s.unseen || plausible(s.expiresAt, now) }

func (s stored) appIDOr(recorded string) string {
	if s.appID != "" {
		return s.appID
	}
	return recorded
}

func (p *pass) refusal(s target.Snapshot) string {
	switch {
	case s.Type != corev1.SecretTypeOpaque:
		return fmt.Sprintf("Secret %q is of type %q and cannot receive the token: choose another spec.target.name, or delete the Secret",
			s.Meta.Name, s.Type)
	case s.Immutable:
		return fmt.Sprintf("Secret %q is immutable and cannot receive a new token: delete it, and it is made anew", s.Meta.Name)
	}
	return ""
}

// inputs gathers everything that the decision depends on, and the time that all of it was judged by.
func (p *pass) inputs() (time.Time, refresh.Inputs) {
	now, synced := p.WeChat.Clock()
	in := refresh.Inputs{
		UID:                string(p.token.UID),
		Deleting:           p.deleted,
		Legacy:             p.legacy(),
		CheckInterval:      p.token.Spec.CheckInterval.Duration,
		StartedAt:          p.started.notLater(now),
		ClockSynced:        synced,
		Suspended:          p.token.Spec.Suspend,
		CredentialsMissing: p.credentials.problem != "",
		CredentialsChanged: p.credentialsChanged(),
		Requests:           p.requests(now),
		Unwritten:          p.unwritten() != nil,
		Token:              p.tokenInput(now),
		Target: refresh.Target{
			Denied:          !p.ownership.Writable(),
			Exists:          p.stored.fingerprint != "",
			AppIDChanged:    p.stored.appID != p.token.Spec.AppID,
			ModeChanged:     p.stored.mode != p.token.Spec.Mode,
			Tampered:        p.existing != nil && p.mem.verified.tampered,
			Outdated:        p.outdated(),
			RepairNotBefore: p.mem.repairs.notBefore(now),
			MintStarted:     p.unansweredMark().StartedAt,
		},
	}
	if p.mem.mintAgain {
		in.Target.MintStarted = now.Add(time.Second) // no failure so far is its answer, and marks are compared by whole seconds
	}
	if p.mem.failure != nil {
		f := *p.mem.failure
		f.Binds = !p.failureIsOld()
		in.Failure = &f
	}
	if acct := p.mem.account; acct != nil && in.Legacy {
		in.MemberWaiting = acct.isWanted()
		if acct.awaitMint(nameOf(p.token)) {
			in.MintEndsBy = now.Add(mintTakes)
		}
	}
	in.MintNotBefore = p.issueNotBefore(now)
	return now, in
}

// mintNotBefore is the pace of the account, or in the last minutes of a valid token the quicker one. What somebody else wrote
// into the Secret does not count: it must not be a way to quick mints.
func (p *pass) mintNotBefore(now time.Time) time.Time {
	expiry := p.tokenInput(now).ExpiresAt
	foreign := p.mem.verified.tampered || p.mem.verified.doubtful
	if p.stored.fingerprint == "" || foreign || !now.Before(expiry) {
		return p.mem.account.mintNotBefore(now)
	}
	return p.mem.account.mintNotBeforeIn(expiry.Add(-legacyHandover), now)
}

// unansweredMark is the mark on the Secret of a Legacy mint that may have happened; the zero value for none.
func (p *pass) unansweredMark() target.Mint {
	if p.record.Mint == p.mem.emptyMark {
		return target.Mint{}
	}
	return p.record.Mint
}

// tokenInput describes the stored token, with what WeChat said about it since.
func (p *pass) tokenInput(now time.Time) refresh.Token {
	s := p.stored
	t := refresh.Token{Fingerprint: s.fingerprint, IssuedAt: s.issuedAt, ExpiresAt: s.expiresAt}
	t.Doubtful = p.existing != nil && p.mem.verified.doubtful
	if p.mem.account == nil || s.fingerprint == "" {
		return t
	}
	if since, dead := p.mem.account.death(s.fingerprint); dead && p.legacy() {
		t.ExpiresAt = earlier(since, s.issuedAt) // who edits the Secret may write any time
		return t
	}
	seen := p.mem.account.lastSeen()
	t.Doubtful = t.Doubtful || seen.doubted
	switch {
	case seen.fingerprint == s.fingerprint:
		if !refresh.NotedAhead(seen.at, now) {
			t.CheckedAt = seen.at
		}
		if !p.legacy() { // a probe tells no expiry
			t.ExpiresAt = seen.expiresAt
		}
	case seen.fingerprint != "" && !p.legacy():
		t.Doubtful = true // another member was given another token
	}
	return t
}

// credentialsChanged: the AppSecret is another one than the token was issued with. What it was issued with is
// known from the own write, or else taken from the annotation, unless the Secret is still the one that was used last.
func (p *pass) credentialsChanged() bool {
	if !p.credentials.known || p.credentials.problem != "" || p.stored.fingerprint == "" {
		return false
	}
	current := p.credentials.value.Fingerprint()
	if p.mem.stored != nil {
		return p.mem.stored.credentials != current
	}
	return p.credentials.version != p.token.Status.CredentialsVersion && p.record.CredentialsFingerprint != current
}

// outdated: labels, annotations or owner reference of the target differ from what is wanted.
func (p *pass) outdated() bool {
	if p.existing == nil || p.stored.fingerprint == "" {
		return false
	}
	_, want := target.Want(p.token, p.ownership.Claim, p.wantedRecord(nil))
	return want.Outdated(p.existing) ||
		want.ReferenceOutdated(p.existing) && p.mem.refusedReferences != p.token.Generation
}

// neighbours answers ownership's questions.
type neighbours struct {
	ctx   context.Context //nolint:containedctx // lives for one call of Settle, which stays free of I/O types
	cache client.Reader
	live  client.Reader
	token *v1alpha1.WeChatAppToken
	err   error
}

// ByUID asks the API server about a resource that is not in the cache: it may belong to another shard.
func (n *neighbours) ByUID(uid types.UID, said string) (string, bool) {
	for _, item := range n.all() {
		if item.UID == uid {
			return item.Name, true
		}
	}
	if n.err != nil || len(validation.IsDNS1123Subdomain(said)) > 0 {
		return "", false // an annotation may say anything
	}
	other := &v1alpha1.WeChatAppToken{}
	err := n.live.Get(n.ctx, types.NamespacedName{Namespace: n.token.Namespace, Name: said}, other)
	if client.IgnoreNotFound(err) != nil {
		n.err = fmt.Errorf("reading WeChatAppToken %s/%s: %w", n.token.Namespace, said, err)
	}
	return said, err == nil && other.UID == uid
}

func (n *neighbours) OlderClaimant() (string, bool) {
	oldest := n.token
	all, err := claimants(n.ctx, n.cache, types.NamespacedName{Namespace: n.token.Namespace, Name: n.token.TargetName()})
	n.note(err)
	for _, item := range all {
		if item.DeletionTimestamp == nil && older(&item, oldest) {
			oldest = &item
		}
	}
	return oldest.Name, oldest.UID != n.token.UID
}

// all are the resources of the namespace. Only a Secret of somebody else costs this look.
func (n *neighbours) all() []v1alpha1.WeChatAppToken {
	list := &v1alpha1.WeChatAppTokenList{}
	n.note(n.cache.List(n.ctx, list, client.InNamespace(n.token.Namespace), client.UnsafeDisableDeepCopy))
	return list.Items
}

func (n *neighbours) note(err error) {
	if err != nil {
		n.err = fmt.Errorf("listing WeChatAppTokens of namespace %s: %w", n.token.Namespace, err)
	}
}

// older orders resources by age, then by namespace and name.
func older(a, b *v1alpha1.WeChatAppToken) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	if a.Namespace != b.Namespace {
		return a.Namespace < b.Namespace
	}
	return a.Name < b.Name
}
