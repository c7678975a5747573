-- What a measurement says beside its numbers. Rows that were written before have NULL here.

ALTER TABLE telemetry
    ADD COLUMN localized        boolean,
    ADD COLUMN new_base_request boolean,
    ADD COLUMN zone_set_id      text,
    ADD COLUMN information      jsonb;

COMMENT ON COLUMN telemetry.localized        IS 'whether it knows where it is; if not, position and heading cannot be trusted';
COMMENT ON COLUMN telemetry.new_base_request IS 'whether it has almost reached the end of what was released to it';
COMMENT ON COLUMN telemetry.zone_set_id      IS 'the zones that it goes by on its map; an empty text where it has none';
COMMENT ON COLUMN telemetry.information      IS 'what else it told people: kind and text; NULL where nothing';
