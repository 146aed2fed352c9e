package abstractllm

import (
	"fmt"
	"reflect"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
)

// largestExactInteger is the largest integer up to which a double, the only number of a Struct, holds every one.
const largestExactInteger = 1 << 53

// encodeObject encodes what a Struct holds without loss: the values that encoding/json decodes to, other numbers, and
// slices, arrays and maps from strings that hold them. The path names the object in an error.
func encodeObject(object map[string]any, path string) (*structpb.Struct, error) {
	fields := make(map[string]*structpb.Value, len(object))
	for key, value := range object {
		if err := validateText(key, path); err != nil {
			return nil, err
		}
		encoded, err := encodeValue(reflect.ValueOf(value), path+"."+key)
		if err != nil {
			return nil, err
		}
		fields[key] = encoded
	}
	return &structpb.Struct{Fields: fields}, nil
}

func encodeValue(value reflect.Value, path string) (*structpb.Value, error) {
	switch value.Kind() {
	case reflect.Invalid:
		return structpb.NewNullValue(), nil
	case reflect.Bool:
		return structpb.NewBoolValue(value.Bool()), nil
	case reflect.String:
		if err := validateText(value.String(), path); err != nil {
			return nil, err
		}
		return structpb.NewStringValue(value.String()), nil
	case reflect.Float32, reflect.Float64:
		if err := validateNumber(value.Float(), path); err != nil {
			return nil, err
		}
		return structpb.NewNumberValue(value.Float()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		integer := value.Int()
		if integer > largestExactInteger || integer < -largestExactInteger {
			return nil, integerTooLarge(path, strconv.FormatInt(integer, 10))
		}
		return structpb.NewNumberValue(float64(integer)), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		integer := value.Uint()
		if integer > largestExactInteger {
			return nil, integerTooLarge(path, strconv.FormatUint(integer, 10))
		}
		return structpb.NewNumberValue(float64(integer)), nil
	case reflect.Pointer, reflect.Interface:
		return encodeValue(value.Elem(), path)
	case reflect.Slice, reflect.Array:
		return encodeList(value, path)
	case reflect.Map:
		if value.Type().Key().Kind() == reflect.String {
			return encodeMap(value, path)
		}
	}
	rule := "nil, a bool, a number, a string, a slice, or a map whose keys are strings"
	return nil, invalidField(path, rule, value.Type().String())
}

func integerTooLarge(path, integer string) *Error {
	return invalidField(path, "from -2^53 to 2^53 (send any other integer as a string)", integer)
}

func encodeList(list reflect.Value, path string) (*structpb.Value, error) {
	entries := make([]*structpb.Value, list.Len())
	for index := range entries {
		entry, err := encodeValue(list.Index(index), fmt.Sprintf("%s[%d]", path, index))
		if err != nil {
			return nil, err
		}
		entries[index] = entry
	}
	return structpb.NewListValue(&structpb.ListValue{Values: entries}), nil
}

func encodeMap(entries reflect.Value, path string) (*structpb.Value, error) {
	object := make(map[string]any, entries.Len())
	for iterator := entries.MapRange(); iterator.Next(); {
		object[iterator.Key().String()] = iterator.Value().Interface()
	}
	encoded, err := encodeObject(object, path)
	if err != nil {
		return nil, err
	}
	return structpb.NewStructValue(encoded), nil
}
