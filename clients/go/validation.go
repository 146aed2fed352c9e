package abstractllm

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// validateRequest refuses text that is not UTF-8, numbers that are not finite, and a request beyond the message limit.
// gRPC and the server would refuse them too, but without naming the field, or only after seconds of retries.
func validateRequest(request proto.Message, messageLimit int) *Error {
	if err := validateMessage(request.ProtoReflect(), ""); err != nil {
		return err
	}
	if size := proto.Size(request); size > messageLimit {
		message := fmt.Sprintf("request: must have at most %d bytes, got %d", messageLimit, size)
		err := newError(ReasonMessageTooLarge, message)
		err.Field, err.Limit, err.Requested = "request", strconv.Itoa(messageLimit), strconv.Itoa(size)
		return err
	}
	return nil
}

// validateMessage validates the fields that are set; the prefix goes before their names in an error.
func validateMessage(message protoreflect.Message, prefix string) (err *Error) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		path := prefix + string(field.Name())
		switch {
		case field.IsMap():
			err = validateMap(field, value.Map(), path)
		case field.IsList():
			for index := 0; index < value.List().Len() && err == nil; index++ {
				err = validateValue(field, value.List().Get(index), fmt.Sprintf("%s[%d]", path, index))
			}
		default:
			err = validateValue(field, value, path)
		}
		return err == nil
	})
	return err
}

func validateMap(field protoreflect.FieldDescriptor, entries protoreflect.Map, path string) (err *Error) {
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if err = validateValue(field.MapKey(), key.Value(), path); err == nil {
			err = validateValue(field.MapValue(), value, path+"."+key.String())
		}
		return err == nil
	})
	return err
}

func validateValue(field protoreflect.FieldDescriptor, value protoreflect.Value, path string) *Error {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return validateMessage(value.Message(), path+".")
	case protoreflect.StringKind:
		return validateText(value.String(), path)
	case protoreflect.DoubleKind:
		return validateNumber(value.Float(), path)
	}
	return nil
}

func validateText(text, path string) *Error {
	if utf8.ValidString(text) {
		return nil
	}
	return invalidField(path, "Unicode text in UTF-8", quotePrefix(text))
}

func validateNumber(number float64, path string) *Error {
	if !math.IsInf(number, 0) && !math.IsNaN(number) {
		return nil
	}
	return invalidField(path, "a finite number", strconv.FormatFloat(number, 'g', -1, 64))
}

// quotePrefix quotes the first 80 bytes of a text.
func quotePrefix(text string) string {
	if len(text) > 80 {
		text = text[:80]
	}
	return strconv.Quote(text)
}
