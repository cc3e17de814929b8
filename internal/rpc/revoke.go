package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/message"
)

// Revoke makes tokens invalid and ends their sessions.
func (s *controls) Revoke(ctx context.Context, req *realtimev1.RevokeRequest) (resp *realtimev1.RevokeResponse, err error) {
	defer func() {
		s.audit(ctx, "Revoke", err, append(targetAttrs(req.GetRevocation()), "sessions", resp.GetSessionCount(), "unreached", resp.GetUnreachedNodes())...)
	}()
	r, err := s.revocation(req.GetRevocation(), time.Now())
	if err != nil {
		return nil, err
	}
	ended, unreached, err := s.ask.Revoke(ctx, r)
	if err != nil {
		return nil, err
	}
	return &realtimev1.RevokeResponse{SessionCount: int32(ended), UnreachedNodes: unreached}, nil
}

// Unrevoke takes a revocation back.
func (s *controls) Unrevoke(ctx context.Context, req *realtimev1.UnrevokeRequest) (_ *realtimev1.UnrevokeResponse, err error) {
	defer func() { s.audit(ctx, "Unrevoke", err, targetAttrs(req.GetRevocation())...) }()
	r, err := targetOf(req.GetRevocation())
	if err != nil {
		return nil, err
	}
	if err := s.ask.Unrevoke(ctx, r); err != nil {
		return nil, err
	}
	return &realtimev1.UnrevokeResponse{}, nil
}

// ListRevocations lists those in force: everyone's, users', tokens'.
func (s *controls) ListRevocations(ctx context.Context, req *realtimev1.ListRevocationsRequest) (resp *realtimev1.ListRevocationsResponse, err error) {
	defer func() { s.audit(ctx, "ListRevocations", err, "revocations", len(resp.GetRevocations())) }()
	size, err := pageSize(req.GetPageSize(), defaultPage, control.MaxPage)
	if err != nil {
		return nil, err
	}
	after, err := readName("revocations", req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.ask.Revocations(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b broker.Revocation) int { return strings.Compare(targetName(a), targetName(b)) })
	list = slices.DeleteFunc(list, func(r broker.Revocation) bool { return targetName(r) <= after })
	resp = &realtimev1.ListRevocationsResponse{}
	if len(list) > size {
		list = list[:size]
		resp.NextPageToken = nameToken("revocations", targetName(list[size-1]))
	}
	for _, r := range list {
		resp.Revocations = append(resp.Revocations, revocationOf(r))
	}
	return resp, nil
}

// targetName orders revocations; their names may not contain a line break.
func targetName(r broker.Revocation) string {
	switch {
	case r.All:
		return "all"
	case r.TokenID != "":
		return "token " + r.TokenID
	}
	return "of " + r.User
}

func targetAttrs(r *realtimev1.Revocation) []any {
	return []any{"user_id", brief(r.GetUserId()), "token_id", brief(r.GetTokenId()), "all_users", r.GetAllUsers() != nil}
}

func targetOf(r *realtimev1.Revocation) (target broker.Revocation, err error) {
	switch t := r.GetTarget().(type) {
	case *realtimev1.Revocation_UserId:
		target.User = t.UserId
		err = within("revocation", message.CheckUser(t.UserId))
	case *realtimev1.Revocation_TokenId:
		target.TokenID = t.TokenId
		if t.TokenId == "" || len(t.TokenId) > auth.MaxTokenIDBytes || strings.Contains(t.TokenId, "\n") {
			err = wrong("revocation.token_id", "token_id is the jti of a token: 1 to 256 bytes on one line", auth.MaxTokenIDBytes)
		}
	case *realtimev1.Revocation_AllUsers:
		target.All = true
	default:
		err = wrong("revocation.target", "say what is revoked: user_id, token_id or all_users", 0)
	}
	return target, err
}

// revocation is what a request says. Unless it says when, it concerns what was issued until now (of a token that is named:
// whenever it was) and stands as long as the longest token that it concerns may live.
func (s *controls) revocation(req *realtimev1.Revocation, now time.Time) (r broker.Revocation, err error) {
	if r, err = targetOf(req); err != nil {
		return r, err
	}
	usual, reach := now, now
	if r.TokenID != "" {
		usual = time.Time{}
	}
	if r.Before, err = date("revocation.issued_before", req.GetIssuedBefore(), usual); err != nil {
		return r, err
	}
	if r.Before.After(now) {
		reach = r.Before
	}
	if r.Expires, err = date("revocation.expires_at", req.GetExpiresAt(), reach.Add(s.lifetime)); err != nil {
		return r, err
	}
	if !r.Expires.After(now) {
		return r, wrong("revocation.expires_at", "expires_at is not in the future: Unrevoke takes a revocation back", 0)
	}
	return r, nil
}

func revocationOf(r broker.Revocation) *realtimev1.Revocation {
	m := &realtimev1.Revocation{ExpiresAt: timestamppb.New(r.Expires)}
	switch {
	case r.All:
		m.Target = &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}
	case r.TokenID != "":
		m.Target = &realtimev1.Revocation_TokenId{TokenId: r.TokenID}
	default:
		m.Target = &realtimev1.Revocation_UserId{UserId: r.User}
	}
	if !r.Before.IsZero() {
		m.IssuedBefore = timestamppb.New(r.Before)
	}
	return m
}
