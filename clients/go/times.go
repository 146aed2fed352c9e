package abstractllm

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func encodeDuration(duration *time.Duration) *durationpb.Duration {
	if duration == nil {
		return nil
	}
	return durationpb.New(*duration)
}

func decodeDuration(duration *durationpb.Duration) *time.Duration {
	if duration == nil {
		return nil
	}
	return new(duration.AsDuration())
}

// decodeTime returns the zero time for an absent timestamp.
func decodeTime(timestamp *timestamppb.Timestamp) time.Time {
	if timestamp == nil {
		return time.Time{}
	}
	return timestamp.AsTime()
}
