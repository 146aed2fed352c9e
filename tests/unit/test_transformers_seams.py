"""The private parts of transformers that the batch loop is put into: a new version that moves one fails here first."""

import inspect
import re
from types import SimpleNamespace

from transformers import (
    AttentionInterface,
    ContinuousBatchingConfig,
    GenerationConfig,
    GenerationMixin,
    PreTrainedTokenizerBase,
)
from transformers.generation.continuous_batching import scheduler
from transformers.generation.continuous_batching.cache import PagedAttentionCache, group_layers_by_attn_type
from transformers.generation.continuous_batching.cache_allocators.cache_allocator import BlockLedger, CacheAllocator
from transformers.generation.continuous_batching.cache_allocators.cache_pool import CachePool
from transformers.generation.continuous_batching.cache_allocators.full_attention import FullAttentionCacheAllocator
from transformers.generation.continuous_batching.cache_allocators.sliding_attention import (
    SlidingAttentionCacheAllocator,
)
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
)
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingIOs
from transformers.generation.continuous_batching.model_runner import ModelRunner, infer_max_single_request_tokens
from transformers.generation.continuous_batching.offloading_manager import OffloadingManager
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus
from transformers.generation.continuous_batching.utils import (
    CudaGraphBuffer,
    find_head_dim,
    find_num_key_value_heads,
    stream_context,
)
from transformers.utils.chat_template_utils import _get_template_literal_text, _get_template_variables
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import attention, start
from abstractllm.providers.huggingface.worker.batching.step_inputs import StepInputs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.test_architectures import Followers


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_a_request_is_told_of_its_tokens_and_made_anew_after_an_eviction():
    assert parameters(RequestState.update_and_check_completion) == ["self", "token_id", "logprob"]
    assert parameters(RequestState.create_equivalent_initial_request) == ["self"]
    assert parameters(RequestState.to_generation_output) == ["self"]
    assert {"tokens_to_process", "generated_tokens", "initial_tokens", "max_new_tokens"} <= set(
        RequestState.__dataclass_fields__
    )
    assert RequestStatus.FINISHED > RequestStatus.DECODING > RequestStatus.PREFILLING > RequestStatus.PENDING


def test_a_scheduler_is_chosen_by_name_and_clears_what_is_cancelled():
    assert "fifo" in scheduler.SCHEDULER_MAPPING
    stock = scheduler.FIFOScheduler
    assert parameters(stock.clear_cancelled_requests) == ["self"]
    assert parameters(stock.set_request_cancellation) == ["self", "request_id"]
    assert parameters(stock._schedule_request)[:3] == ["self", "state", "request_tokens"]
    assert parameters(stock.add_waiting_request) == ["self", "state"]
    assert parameters(stock._process_candidates)[:2] == ["self", "candidates"]
    assert {"state", "query_length"} <= set(FutureRequestState.__slots__)
    assert "remaining_prefill_tokens" in RequestState.__dataclass_fields__
    source = inspect.getsource(scheduler.Scheduler.reset)
    assert all(name in source for name in ("active_requests", "waiting_requests", "block_new_requests"))


def test_the_manager_asks_its_own_methods():
    source = inspect.getsource(ContinuousBatchingManager)
    for name in ("_create_batch_processor", "_generation_loop_body", "_handle_critical_error", "input_queue"):
        assert name in source
    assert "switch_to_cb_friendly_attn(model" in inspect.getsource(ContinuousBatchingManager.__init__)
    assert parameters(ContinuousBatchingManager.switch_to_cb_friendly_attn) == ["self", "model", "auto_switch_to_flash"]
    assert "_original_attn_impl" in source
    assert "_wake_up_loop" in source


def test_outputs_go_to_the_router():
    source = inspect.getsource(ContinuousBatchProcessor)
    assert "output_router.deliver_batch" in source
    assert "output_router.fail_and_deliver" in source


def test_what_the_counters_read_is_there():
    assert "self.current_batch += 1" in inspect.getsource(ContinuousBatchingManager._generation_loop_body)
    assert "state.position_offset += prefill_length" in inspect.getsource(scheduler.Scheduler._infer_request_tokens)
    assert "self.num_blocks" in inspect.getsource(PagedAttentionCache)
    assert "self.block_table" in inspect.getsource(CacheAllocator)
    assert "allow_block_sharing" in ContinuousBatchingConfig.__dataclass_fields__


def test_the_runner_samples_in_one_method_and_computes_in_another():
    assert parameters(ModelRunner._sample) == ["self", "scores", "output_ids"]
    assert parameters(ModelRunner.compute_batch) == ["self", "model", "batch_data"]
    source = inspect.getsource(ModelRunner)
    assert "self._sample(scores, output_ids)" in source
    assert "self.compute_batch(model, batch_data)" in source
    assert all(name in source for name in ("use_cuda_graph_varlen", "use_cuda_graph_decode", "max_requests_per_batch"))
    assert "self.model_runner.compute_batch(" in inspect.getsource(ContinuousBatchProcessor)
    assert "requests_in_batch" in inspect.getsource(ContinuousBatchingIOs.prepare_batch_tensors)
    assert "self.output_ids[0, : self.num_request_in_batch]" in inspect.getsource(ContinuousBatchingIOs)
    assert "compute_stream" in inspect.getsource(ContinuousBatchingIOs.__init__)
    assert parameters(stream_context) == ["stream"]


def test_what_is_captured_and_replayed_is_decided_by_methods_that_can_be_replaced():
    assert parameters(ModelRunner.warmup) == ["self", "model"]
    assert parameters(ModelRunner.run_one_warmup) == ["self", "model", "num_q_tokens", "max_kv_read"]
    assert parameters(ModelRunner.maybe_pad_inputs) == ["self", "num_q_tokens", "max_kv_read", "use_decode_fast_path"]
    assert parameters(ModelRunner._get_forward_fn) == ["self", "use_block_table"]
    assert "self.model_runner.warmup(model)" in inspect.getsource(ContinuousBatchProcessor.warmup)
    warmup = inspect.getsource(ModelRunner.run_one_warmup)
    assert "use_decode_fast_path = max_kv_read is None" in warmup
    assert "self.maybe_pad_inputs(" in warmup
    assert "self.compute_batch(model, batch_data)" in warmup
    compute = inspect.getsource(ModelRunner.compute_batch)
    assert "forward_fn, use_cuda_graph = self._get_forward_fn(" in compute
    assert "self._capture_graph(" in compute
    assert "return (self.num_q_tokens,)" in inspect.getsource(ContinuousBatchingIOs._get_graph_key)
    assert "pool=self.graph_pool_id" in inspect.getsource(ModelRunner._capture_graph)
    assert "memory_pool_context(self.mem_pool)" in inspect.getsource(ModelRunner._capture_graph)
    # Whether a step is padded is read after its size was decided.
    prepare = inspect.getsource(ContinuousBatchProcessor.prepare_next_batch)
    assert prepare.index("maybe_pad_inputs") < prepare.index("use_padding=self.model_runner.pad_inputs")
    graphs = CudaGraphBuffer()
    graph = SimpleNamespace(reset=lambda: None)
    graphs.set_graph((4,), graph)
    assert graphs.get_graph((4,)) is graphs._storage[4,] is graph
    assert graphs.get_graph((8,)) is None


def test_a_step_has_parts_that_can_be_put_in_another_order():
    loop = inspect.getsource(ContinuousBatchingManager._generation_loop_body)
    parts = ("batch_processor.prepare_next_batch()", "self._generation_step()", "batch_processor.update_batch()")
    assert sorted(parts, key=loop.index) == list(parts)
    assert parameters(ContinuousBatchProcessor.prepare_next_batch) == ["self"]
    assert parameters(ContinuousBatchProcessor.update_batch) == ["self"]
    step = inspect.getsource(ContinuousBatchProcessor._generation_step)
    assert "self.inputs_and_outputs.retrieve_device_outputs()" in step
    update = inspect.getsource(ContinuousBatchProcessor.update_batch)
    assert "requests_in_batch, new_tokens, logprobs = self.inputs_and_outputs.prepare_batch_update()" in update
    assert "if future_state.has_new_token:" in update
    # One that lost its place to others in flight is told from one that goes on.
    source = inspect.getsource(OffloadingManager.offload_requests)
    assert "_status = RequestStatus.FINISHED" in source
    assert "_status = RequestStatus.PENDING" in source
    assert "self.input_ids = " in inspect.getsource(ContinuousBatchingIOs._setup_static_tensors)
    assert "self.compute_stream" in inspect.getsource(ContinuousBatchingIOs.__init__)


def test_a_step_can_be_taken_back_and_a_request_wiped_out_of_the_cache():
    assert FutureRequestState.__slots__ == ("state", "has_new_token", "complete_blocks", "query_length")
    assert "self._generation_step()" in inspect.getsource(ContinuousBatchingManager._generation_loop_body)
    source = inspect.getsource(ContinuousBatchingIOs.prepare_batch_tensors)
    assert "state.position_offset += query_length" in source
    assert "state.tokens_to_process = [TMP_TOKEN_ID]" in source
    source = inspect.getsource(ContinuousBatchingIOs.prepare_batch_update)
    assert all(name in source for name in ("self.requests_in_batch", "self.num_request_in_batch"))
    source = inspect.getsource(scheduler.Scheduler._schedule_request)
    assert "state.remaining_prefill_tokens = request_tokens[token_budget:]" in source
    assert parameters(scheduler.Scheduler.finish_request) == ["self", "request_id"]
    assert parameters(PagedAttentionCache.free_blocks) == ["self", "request_id", "no_cache"]
    assert "self._copy_view" in inspect.getsource(CacheAllocator.copy_blocks)
    assert "self.shared_ref_counts" in inspect.getsource(BlockLedger)
    assert SlidingAttentionCacheAllocator.layer_type == "sliding_attention"


def test_generate_takes_its_configuration_from_the_model_where_a_field_is_unset():
    source = inspect.getsource(GenerationMixin._prepare_generation_config)
    assert "update(**self.generation_config.to_dict(), defaults_only=True" in source
    assert "max_length" in GenerationConfig._get_default_generation_params()
    assert ".to(copy=True, dtype=torch.float32" in inspect.getsource(GenerationMixin._sample)


def test_the_tokens_of_a_step_can_be_bounded_for_a_while():
    source = inspect.getsource(ContinuousBatchProcessor.prepare_next_batch)
    assert "schedule_batch(\n            self.max_batch_tokens, self.cache.max_tokens_read" in source


def test_chat_templates_tell_their_variables_and_words():
    template = "{% if switch %}on{% endif %}{{ messages[0].content or 'word' }}"
    assert {"switch", "messages"} <= _get_template_variables(template)
    assert {"on", "word"} <= set(_get_template_literal_text(template).split("\0"))


def test_the_cache_is_updated_by_the_attention_and_sized_from_its_configuration():
    assert parameters(PagedAttentionCache.update) == ["self", "key_states", "value_states", "layer_idx", "kwargs"]
    assert callable(AttentionInterface.register)
    assert parameters(infer_max_single_request_tokens) == ["cache"]
    assert parameters(find_head_dim) == parameters(find_num_key_value_heads) == ["config"]
    assert parameters(group_layers_by_attn_type) == ["config"]
    source = inspect.getsource(PagedAttentionCache.__init__)
    assert "lcm(*(ca.bytes_per_block for ca in self.cache_allocators.values()), 128)" in source
    assert "trash_bytes = 2 * self.bytes_per_sector" in source
    source = inspect.getsource(ContinuousBatchingIOs.get_model_kwargs)
    assert all(
        name in source for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "cache=self")
    )


def test_the_inputs_of_a_step_are_prepared_by_methods_that_can_be_replaced():
    prepare = ContinuousBatchingIOs.prepare_batch_tensors
    names = ["requests_in_batch", "logits_processors", "use_decode_fast_path", "num_q_tokens", "max_kv_read"]
    assert parameters(prepare) == ["self", *names, "use_padding"]
    assert parameters(ContinuousBatchingIOs.get_model_kwargs) == ["self", "use_padding"]
    source = inspect.getsource(ContinuousBatchProcessor.prepare_next_batch)
    assert all(name in source for name in ("inputs_and_outputs.prepare_batch_tensors(", *names))
    # What it reads of a step: a new attribute would have to be set, too.
    read = set(re.findall(r"self\.(\w+)", inspect.getsource(ContinuousBatchingIOs.get_model_kwargs)))
    kept = {
        "input_ids",
        "position_ids",
        "cumulative_seqlens_q",
        "cumulative_seqlens_k",
        "logits_indices",
        "block_table",
    }
    kept |= {"attention_mask", "read_index_storage", "write_index_storage", "_bulk_input_tensor", "static_inputs"}
    written = {"num_q_tokens", "max_kv_read", "max_length_q", "max_length_k", "true_read_sizes", "true_write_sizes"}
    assert read == {*kept, *written, "use_block_table", "cache", "use_cuda_graph_varlen", "_get_num_sequences"} | (
        {"total_seqlen_k"}  # of masks, which our attention does without
    )
    assert "return (self.num_q_tokens,)" in inspect.getsource(ContinuousBatchingIOs._get_graph_key)


def test_the_cache_gives_and_replaces_blocks_in_lists_that_it_keeps():
    assert parameters(PagedAttentionCache.can_store_request_tokens) == ["self", "state", "request_len", "dry_run"]
    assert "self.cache.can_store_request_tokens(state, request_len)" in inspect.getsource(
        scheduler.Scheduler._process_candidates
    )
    assert "return self.position_offset" in inspect.getsource(RequestState.current_len)
    assert "block_table.extend(" in inspect.getsource(FullAttentionCacheAllocator.allocate_cache_to_request)
    assert parameters(PagedAttentionCache.mark_complete_blocks) == ["self", "state", "complete_blocks"]
    assert "self.cache.mark_complete_blocks(state, future_state.complete_blocks)" in inspect.getsource(
        ContinuousBatchProcessor.update_batch
    )
    replacing = [name for name, function in vars(CacheAllocator).items() if callable(function)]
    replacing = [name for name in replacing if "block_table[i] =" in inspect.getsource(getattr(CacheAllocator, name))]
    assert replacing == ["mark_complete_blocks"]
    assert "self.block_table.pop(request_id" in inspect.getsource(CacheAllocator.free_blocks)


def test_a_scheduler_takes_steps_for_decode_steps_by_the_caches_word():
    source = inspect.getsource(scheduler.Scheduler._process_candidates)
    assert "decode_fast_path = self.cache.max_blocks_per_request > 0" in source
    assert "state.position_offset < self.cache.max_decode_fast_path_length" in source
    assert "use_decode_fast_path" in inspect.getsource(ContinuousBatchProcessor.prepare_next_batch)


def test_pages_lie_in_memory_as_the_attention_reads_them():
    """A page of keys, then one of values, for each layer of a block; two sectors that no request is given."""
    source = inspect.getsource(FullAttentionCacheAllocator.register_cache_tensor)
    assert "flattened_view[(2 * i + 0) * self.tokens_per_page :]" in source
    assert "flattened_view[(2 * i + 1) * self.tokens_per_page :]" in source
    assert "self._kv_page_views[layer_idx] = (k_pages[:num_pages], v_pages[:num_pages])" in source
    assert "self._copy_view = cache_tensor.view(-1, self.bytes_per_block)" in source
    source = inspect.getsource(CacheAllocator)
    assert "self.write_trash_index = self.block_physical_stride * self.blocks_per_sector" in source
    assert "self.block_physical_stride = self.rows_per_token * self.tokens_per_block" in source
    assert all(name in source for name in ("self.layer_indices", "self.tokens_per_page", "self.block_table"))
    source = inspect.getsource(FullAttentionCacheAllocator.__init__)
    assert all(name in source for name in ("self.head_dim", "self.num_key_value_heads", "self.cache_dtype"))
    assert FullAttentionCacheAllocator.rows_per_token == 2
    assert "num_reserved_sectors: int = 2" in inspect.getsource(CachePool.__init__)
    assert not hasattr(FullAttentionCacheAllocator, "sliding_window")


def test_a_sliding_window_is_a_ring_of_slots():
    """The token at a position lies in the slot `position % window`, and no more pages are given out than that takes."""
    source = inspect.getsource(SlidingAttentionCacheAllocator)
    assert "self.sliding_window = sliding_window" in source
    assert "ring_idx = token_idx % self.sliding_window" in source
    assert "page_idx, page_offset = divmod(ring_idx, self.tokens_per_page)" in source
    assert "total_length = min(past_length + query_length, self.sliding_window)" in source
    assert "query_length + min(past_length, self.sliding_window - 1)" in source


def test_what_the_attention_is_handed(monkeypatch):
    """The cache is asked once for each layer, by the layer or by the attention, and what it adds comes through."""
    handed, layers = [], []
    hand_over, attend = StepInputs._hand_over, attention.paged_attention

    def counting(inputs, key_states, value_states, layer_idx, kwargs):
        layers.append(layer_idx)
        return hand_over(inputs, key_states, value_states, layer_idx, kwargs)

    def recording(module, query, key, value, attention_mask, **options):
        output, weights = attend(module, query, key, value, attention_mask, **options)
        assert attention_mask is None
        assert query.shape[2] == key.shape[2] == value.shape[2] == output.shape[1]
        assert options.keys() >= {"scaling", "cu_seq_lens_q", "max_length_q"}
        assert options["cu_seq_lens_q"][-1] == query.shape[2]
        handed.append((module.layer_idx, options["max_length_q"]))
        return output, weights

    monkeypatch.setattr(StepInputs, "_hand_over", counting)
    monkeypatch.setattr(attention, "paged_attention", recording)
    for name in ("Llama", "Gemma 3", "GPT-OSS"):
        handed.clear()
        layers.clear()
        monkeypatch.setattr(start, "candidates", lambda *_: [attention.PAGED_ATTENTION])
        followers = Followers()
        load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=4 << 20, max_batch_size=2)
        loaded = LoadedModel(model_of(next(each for each in ARCHITECTURES if each.name == name)), tokenizer(), load)
        engine = start.start(loaded, load, send=followers.take_all, end=followers.end, crash=followers.crash)
        assert engine is not None, loaded.description.note
        engine.stop()
        assert [layer for layer, _ in handed] == layers
        assert {longest == 1 for _, longest in handed} == {True, False}
        assert all(isinstance(longest, int) for _, longest in handed)


def test_flash_attention_is_found_without_asking_a_hub():
    for function in (is_flash_attn_2_available, is_flash_attn_3_available):
        assert inspect.signature(function).parameters["kernels_fallback_ok"].default is False


def test_a_tokenizer_names_its_control_tokens_and_writes_them_as_text():
    assert parameters(PreTrainedTokenizerBase._get_control_tokens) == ["self", "chat_template"]
    assert parameters(PreTrainedTokenizerBase._encode_without_added_tokens) == ["self", "text"]
