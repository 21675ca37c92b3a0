import Base
import Testing
@testable import Store

@Suite struct WatchResponseTests {
    private let header = ResponseHeader(clusterID: ClusterID(1), memberID: MemberID(2), revision: Revision(99), raftTerm: Term(3))

    private func encode(_ response: WatchResponse) -> [UInt8] {
        var writer = ByteWriter()
        response.encode(header: header, into: &writer)
        return writer.bytes
    }

    @Test func eventsAreEncodedWithTheResponsesOwnRevision() {
        let kv: [UInt8] = [0x0a, 1, 0x61, 0x18, 7]
        let response = WatchResponse(
            headerRevision: Revision(7), watchID: WatchID(4),
            events: [WatchEvent(isDelete: false, kv: kv), WatchEvent(isDelete: true, kv: kv, previousKV: [0x0a, 1, 0x61])])
        #expect(encode(response) == [
            0x0a, 8, 0x08, 1, 0x10, 2, 0x18, 7, 0x20, 3,
            0x10, 4,
            0x5a, 7, 0x12, 5, 0x0a, 1, 0x61, 0x18, 7,
            0x5a, 14, 0x08, 1, 0x12, 5, 0x0a, 1, 0x61, 0x18, 7, 0x1a, 3, 0x0a, 1, 0x61,
        ])
    }

    @Test func controlFieldsAreEncoded() {
        var response = WatchResponse(headerRevision: .zero, watchID: .none)
        response.created = true
        response.canceled = true
        response.compactRevision = Revision(5)
        response.cancelReason = "ab"
        response.fragment = true
        #expect(encode(response) == [
            0x0a, 6, 0x08, 1, 0x10, 2, 0x20, 3,
            0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            0x18, 1, 0x20, 1, 0x28, 5, 0x32, 2, 0x61, 0x62, 0x38, 1,
        ])
    }

    @Test func backlogBytesCoverTheEncodedSize() {
        let big = ResponseHeader(clusterID: ClusterID(.max), memberID: MemberID(.max), raftTerm: Term(.max))
        for size in [0, 1, 100, 126, 127, 128, 20_000] {
            var response = WatchResponse(
                headerRevision: Revision(-1), watchID: WatchID(-1),
                events: [WatchEvent(isDelete: true, kv: Array(repeating: 1, count: size), previousKV: Array(repeating: 2, count: size))])
            response.created = true
            response.canceled = true
            response.fragment = true
            response.compactRevision = Revision(-1)
            response.cancelReason = WatchRefusal.duplicateID.rawValue
            var writer = ByteWriter()
            response.encode(header: big, into: &writer)
            #expect(writer.bytes.count == response.backlogBytes)
        }
    }

    @Test func fragmentsStayBelowTheLimitAndKeepOrder() {
        let sizes = [10, 10, 10, 500, 10, 10, 400, 90, 10]
        let events = sizes.enumerated().map { WatchEvent(isDelete: false, kv: Array(repeating: UInt8($0.offset), count: $0.element)) }
        let whole = WatchResponse(headerRevision: Revision(9), watchID: WatchID(3), events: events)
        let pieces = whole.fragments(limitBytes: 300)
        #expect(pieces.flatMap(\.events) == events)
        #expect(pieces.dropLast().allSatisfy { $0.fragment } && pieces.last?.fragment == false)
        #expect(pieces.allSatisfy { ($0.backlogBytes < 300 || $0.events.count == 1) && $0.headerRevision == Revision(9) && $0.watchID == WatchID(3) })
        #expect(pieces.map(\.events.count) == [3, 1, 2, 1, 2])
        #expect(whole.fragments(limitBytes: 10_000) == [whole])
        let single = WatchResponse(headerRevision: Revision(9), watchID: WatchID(3), events: [events[3]])
        #expect(single.fragments(limitBytes: 300) == [single])
    }

    private func decode(_ bytes: [UInt8]) throws(DecodingFault) -> WatchRequest {
        let result: Result<WatchRequest, DecodingFault> = bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            do throws(DecodingFault) { return .success(try WatchRequest.decode(&reader)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    @Test func requestsSurviveARoundTrip() throws {
        let requests: [WatchRequest] = [
            .create(WatchCreateRequest(
                key: [1, 2], rangeEnd: [0], startRevision: Revision(-4), progressNotify: true, filters: [.noPut, .noDelete],
                previousKV: true, watchID: WatchID(-9), fragment: true)),
            .create(WatchCreateRequest(key: [])),
            .cancel(WatchID(0)), .cancel(WatchID(-1)), .progress,
        ]
        for request in requests {
            var writer = ByteWriter()
            request.encode(into: &writer)
            #expect(try decode(writer.bytes) == request)
        }
    }

    @Test func unpackedFiltersUnknownFieldsAndUnknownEnumNumbersAreLegal() throws {
        // filters 1 and 7 unpacked, field 20 unknown.
        let body: [UInt8] = [0x0a, 1, 0x61, 0x28, 1, 0x28, 7, 0xa0, 1, 5]
        #expect(try decode([0x0a, UInt8(body.count)] + body) == .create(WatchCreateRequest(key: [0x61], filters: .noDelete)))
        #expect(try decode([]) == .unknown)
        #expect(try decode([0x22, 0]) == .unknown)
    }

    @Test func brokenRequestsAreRefused() {
        #expect(throws: DecodingFault.truncated) { try decode([0x0a, 5, 0x0a]) }
        #expect(throws: DecodingFault.self) { try decode([0x0a, 2, 0x0a, 9]) }
    }
}
