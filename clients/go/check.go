package abstractllm

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

const largestWholeDouble = 1 << 53

// check refuses what gRPC would refuse too, but without naming the field, or only after retrying it for seconds.
func check(request proto.Message, messageLimit int) *Error {
	if err := faultIn(request.ProtoReflect(), ""); err != nil {
		return err
	}
	if size := proto.Size(request); size > messageLimit {
		err := newError(ReasonMessageTooLarge, fmt.Sprintf("request: must have at most %d bytes, got %d", messageLimit, size))
		err.Field, err.Limit, err.Requested = "request", strconv.Itoa(messageLimit), strconv.Itoa(size)
		return err
	}
	return nil
}

// faultIn finds text that is no Unicode and numbers that are not finite.
func faultIn(message protoreflect.Message, path string) *Error {
	var found *Error
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		at := path + string(field.Name())
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, entry protoreflect.Value) bool {
				if found = faultInValue(field.MapKey(), key.Value(), at); found == nil {
					found = faultInValue(field.MapValue(), entry, at+"."+key.String())
				}
				return found == nil
			})
		case field.IsList():
			for index := 0; index < value.List().Len() && found == nil; index++ {
				found = faultInValue(field, value.List().Get(index), fmt.Sprintf("%s[%d]", at, index))
			}
		default:
			found = faultInValue(field, value, at)
		}
		return found == nil
	})
	return found
}

func faultInValue(field protoreflect.FieldDescriptor, value protoreflect.Value, path string) *Error {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return faultIn(value.Message(), path+".")
	case protoreflect.StringKind:
		return faultInText(value.String(), path)
	case protoreflect.DoubleKind:
		return faultInNumber(value.Float(), path)
	}
	return nil
}

func faultInText(text, path string) *Error {
	if utf8.ValidString(text) {
		return nil
	}
	return refused(path, "Unicode text in UTF-8", quoted(text))
}

func faultInNumber(number float64, path string) *Error {
	if !math.IsInf(number, 0) && !math.IsNaN(number) {
		return nil
	}
	return refused(path, "a finite number", strconv.FormatFloat(number, 'g', -1, 64))
}

// quoted shows the beginning of a text.
func quoted(text string) string {
	if len(text) > 80 {
		text = text[:80]
	}
	return strconv.Quote(text)
}

// object takes what a Struct can hold without loss: the values of encoding/json, and whatever slices, arrays and maps
// from strings hold them.
func object(values map[string]any, path string) (*structpb.Struct, error) {
	found := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(values))}
	for key, value := range values {
		if err := faultInText(key, path); err != nil {
			return nil, err
		}
		plain, err := plain(reflect.ValueOf(value), path+"."+key)
		if err != nil {
			return nil, err
		}
		found.Fields[key] = plain
	}
	return found, nil
}

func plain(value reflect.Value, path string) (*structpb.Value, error) {
	switch value.Kind() {
	case reflect.Invalid:
		return structpb.NewNullValue(), nil
	case reflect.Bool:
		return structpb.NewBoolValue(value.Bool()), nil
	case reflect.String:
		if err := faultInText(value.String(), path); err != nil {
			return nil, err
		}
		return structpb.NewStringValue(value.String()), nil
	case reflect.Float32, reflect.Float64:
		if err := faultInNumber(value.Float(), path); err != nil {
			return nil, err
		}
		return structpb.NewNumberValue(value.Float()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		whole := value.Int()
		if whole > largestWholeDouble || whole < -largestWholeDouble {
			return nil, refused(path, "at most 2^53, or else a string", strconv.FormatInt(whole, 10))
		}
		return structpb.NewNumberValue(float64(whole)), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		whole := value.Uint()
		if whole > largestWholeDouble {
			return nil, refused(path, "at most 2^53, or else a string", strconv.FormatUint(whole, 10))
		}
		return structpb.NewNumberValue(float64(whole)), nil
	case reflect.Pointer, reflect.Interface:
		return plain(value.Elem(), path)
	case reflect.Slice, reflect.Array:
		return plainList(value, path)
	case reflect.Map:
		if value.Type().Key().Kind() == reflect.String {
			return plainMap(value, path)
		}
	}
	return nil, refused(path, "nil, a bool, a number, a string, a map from strings or a slice", value.Type().String())
}

func plainList(value reflect.Value, path string) (*structpb.Value, error) {
	entries := make([]*structpb.Value, value.Len())
	for index := range entries {
		entry, err := plain(value.Index(index), fmt.Sprintf("%s[%d]", path, index))
		if err != nil {
			return nil, err
		}
		entries[index] = entry
	}
	return structpb.NewListValue(&structpb.ListValue{Values: entries}), nil
}

func plainMap(value reflect.Value, path string) (*structpb.Value, error) {
	values := make(map[string]any, value.Len())
	for entries := value.MapRange(); entries.Next(); {
		values[entries.Key().String()] = entries.Value().Interface()
	}
	found, err := object(values, path)
	if err != nil {
		return nil, err
	}
	return structpb.NewStructValue(found), nil
}
